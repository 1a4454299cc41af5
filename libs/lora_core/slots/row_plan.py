"""`RowPlan`: which adapters each row of a batch uses, arranged into as few matrix products as possible."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Self

import torch

from lora_core.sampling import Adapters
from lora_core.slots.lanes import Lanes, Uses

MAX_SET = 3
Choice = Sequence[tuple[int, float]]  # a row's slots and their weights; empty for the base model alone


@dataclass(frozen=True, eq=False)
class Run:
    """Slots `low..high-1`, all of one rank, each used by the same number of rows.

    rows: the batch rows, ordered by slot. span: (first, last+1) where the rows are neighbours in that order, so that
    they can be viewed; else None and `index` gathers them. weights: [rows, 1, 1], None where all are 1.
    """

    low: int
    high: int
    rank: int
    rows: tuple[int, ...]
    index: torch.Tensor
    span: tuple[int, int] | None
    weights: torch.Tensor | None


@dataclass(eq=False)
class RowPlan:
    """A batch's rows by slot. overlaps: some row uses several slots. uniform: the one slot that all rows use, if so.

    uses, ranks, unit, like: see `Lanes.of`. forwards: the bank's forward functions for this plan (attributes of a
    module, function), made when it is first in force; a plan lasts for many steps. direct, prompt_additions,
    step_additions: as much of `direct.decoder`.
    """

    size: int
    runs: tuple[Run, ...]
    overlaps: bool
    uniform: int | None
    uses: Uses
    ranks: Sequence[int]
    unit: int
    like: torch.Tensor
    forwards: list[tuple[dict[str, Any], Callable[[torch.Tensor], torch.Tensor]]] | None = None
    direct: bool | None = None
    prompt_additions: list[Sequence[Callable[[torch.Tensor, torch.Tensor], None]]] | None = None
    step_additions: list[Sequence[Callable[[torch.Tensor, torch.Tensor], None]]] | None = None

    @cached_property
    def lanes(self) -> Lanes:
        """The rows as one decode step computes them."""
        return Lanes.of(self.uses, self.size, self.ranks, self.unit, self.like)

    @classmethod
    def of(cls, choices: Sequence[Choice], ranks: Sequence[int], unit: int, like: torch.Tensor) -> Self:
        """choices: for each row its slots and weights. ranks, unit, like: see `Lanes.of`."""
        rows_of: dict[int, list[tuple[int, float]]] = {}
        for row, choice in enumerate(choices):
            for slot, weight in choice:
                rows_of.setdefault(slot, []).append((row, weight))
        runs = []
        # Neighbouring slots differ from their place in the order by a constant.
        keyed = enumerate(sorted(rows_of))
        for _, group in groupby(keyed, key=lambda item: (item[1] - item[0], len(rows_of[item[1]]), ranks[item[1]])):
            members = [slot for _, slot in group]
            used = [use for slot in members for use in rows_of[slot]]
            rows = tuple(row for row, _ in used)
            ends = (rows[0], rows[0] + len(rows))
            span = ends if rows == tuple(range(*ends)) else None
            weights = None
            if any(weight != 1 for _, weight in used):
                weights = like.new_tensor([w for _, w in used]).view(-1, 1, 1)
            index = torch.tensor(rows, device=like.device)
            runs.append(Run(members[0], members[-1] + 1, ranks[members[0]], rows, index, span, weights))
        overlaps = any(len(choice) > 1 for choice in choices)
        # A slot's rank may be another one once the adapter has left it.
        return cls(len(choices), tuple(runs), overlaps, _uniform(choices), rows_of, tuple(ranks), unit, like)


def _uniform(choices: Iterable[Choice]) -> int | None:
    chosen = {tuple(choice) for choice in choices}
    if len(chosen) != 1:
        return None
    match chosen.pop():
        case ((slot, 1.0),):
            return slot
        case _:
            return None


def weights_of(adapters: Adapters) -> Sequence[tuple[str, float]]:
    """The adapters of a row with their weights. Raises ValueError for too many, or a weight that is not finite."""
    if adapters is None:
        return ()
    if isinstance(adapters, str):
        return ((adapters, 1.0),)
    if not 1 <= len(adapters) <= MAX_SET:
        raise ValueError(f"a set of {len(adapters)} adapters on one row, expected 1 to {MAX_SET}")
    for name, weight in adapters.items():
        if not math.isfinite(weight):
            raise ValueError(f"weight of adapter {name!r} is {weight}, expected a finite number")
    return [(name, float(weight)) for name, weight in adapters.items()]
