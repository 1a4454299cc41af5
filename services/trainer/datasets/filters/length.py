"""Lengths in characters and words, and the ratio of completion to prompt."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from services.trainer.datasets.filters.recipe import LengthFilter
from services.trainer.datasets.filters.rows import Mask, Rows, Texts
from services.trainer.datasets.filters.verdict import Verdict, first_reason

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Bound:
    label: str
    what: str
    broken: Mask
    worst: Numbers
    """Of each record, the number that breaks the bound most."""
    passing: str


class Length:
    """Drops texts that are too short or too long."""

    name = "length"

    def __init__(self, knobs: LengthFilter) -> None:
        self._knobs = knobs

    def judge(self, rows: Rows) -> Verdict:
        bounds = list(self._bounds(rows))
        kinds, labels = first_reason(len(rows), [(bound.label, bound.broken) for bound in bounds])

        def explain(row: int) -> str:
            bound = bounds[kinds[row]]
            return f"{bound.what}: {bound.worst[row]:g}, {bound.passing} pass"

        return Verdict(kinds, labels, explain)

    def _bounds(self, rows: Rows) -> Iterator[_Bound]:
        knobs = self._knobs
        for texts in (rows.last_question, rows.completions):
            for unit, measure in (("characters", _characters), ("words", _words)):
                low = getattr(knobs, f"min_{texts.name}_{unit}")
                high = getattr(knobs, f"max_{texts.name}_{unit}")
                if not low and high is None:
                    continue
                numbers = measure(texts.values)
                least, most = _extremes(texts, numbers)
                yield from _between(f"{texts.name} {unit}", least, most, low, high)
        if knobs.min_ratio is not None or knobs.max_ratio is not None:
            prompt_length = np.maximum(_characters(rows.last_question.values), 1)
            ratio = _extremes(rows.completions, _characters(rows.completions.values))[1] / prompt_length
            yield from _between("completion/prompt ratio", ratio, ratio, knobs.min_ratio, knobs.max_ratio)


def _between(what: str, least: Numbers, most: Numbers, low: float | None, high: float | None) -> Iterator[_Bound]:
    if low:
        yield _Bound(f"{what} below {low:g}", what, least < low, least, f"at least {low:g}")
    if high is not None:
        yield _Bound(f"{what} above {high:g}", what, most > high, most, f"at most {high:g}")


def _characters(values: pl.Series) -> Numbers:
    return values.str.len_chars().to_numpy().astype(np.float64)


def _words(values: pl.Series) -> Numbers:
    return values.str.count_matches(r"\S+").to_numpy().astype(np.float64)


def _extremes(texts: Texts, numbers: Numbers) -> tuple[Numbers, Numbers]:
    """Least and most over the texts of each record; a record without texts has 0 of both."""
    least, most = np.full(texts.count, np.inf), np.zeros(texts.count)
    np.minimum.at(least, texts.rows, numbers)
    np.maximum.at(most, texts.rows, numbers)
    return np.where(np.isinf(least), 0.0, least), most
