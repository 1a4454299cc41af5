"""What a filter decides of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.trainer.datasets.filters.rows import Mask, Rows

Kinds = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Verdict:
    """Which records a filter drops, each for one kind of reason."""

    kinds: Kinds
    """For each record the number of its reason in `labels`; -1 keeps it."""
    labels: tuple[str, ...]
    explain: Callable[[int], str]
    """The reason of one dropped record, with the value that was found and the bound."""
    uncertain: int = 0
    """Records that are kept because the filter cannot decide."""

    @property
    def keep(self) -> Mask:
        """Records that pass."""
        return self.kinds < 0


class Filter(Protocol):
    """One filter of a recipe, over one stream."""

    name: str

    def judge(self, rows: Rows) -> Verdict:
        """Judge a batch; batches come in the stream's order, each without what earlier filters dropped."""
        ...


def first_reason(rows: int, reasons: list[tuple[str, Mask]]) -> tuple[Kinds, tuple[str, ...]]:
    """Kinds and labels where each record is dropped for the first reason that holds of it."""
    kinds = np.full(rows, -1, np.int16)
    for number, (_, found) in enumerate(reasons):
        kinds[found & (kinds < 0)] = number
    return kinds, tuple(label for label, _ in reasons)
