"""Regular expressions of one's own, and lists of words that are looked for like one."""

import re

import numpy as np
import polars as pl

from services.trainer.datasets.filters.recipe import PatternFilter, ToxicTerms
from services.trainer.datasets.filters.rows import Mask, Rows, Texts
from services.trainer.datasets.filters.verdict import Verdict, first_reason


class Pattern:
    """Drops records in which an expression is found, or those in which it is not."""

    def __init__(self, knobs: PatternFilter) -> None:
        self.name = f"pattern {knobs.name}"
        self._knobs = knobs

    def judge(self, rows: Rows) -> Verdict:
        knobs = self._knobs
        found = np.zeros(len(rows), bool)
        for texts in rows.texts(knobs.text):
            found |= texts.any(contains(texts.values, knobs.pattern))
        dropped = found if knobs.action == "drop" else ~found
        label = f"{'found' if knobs.action == 'drop' else 'not found'}: {knobs.pattern}"
        kinds, labels = first_reason(len(rows), [(label, dropped)])

        def explain(row: int) -> str:
            if knobs.action == "keep":
                return f"{knobs.text}: no match of {knobs.pattern!r}, one is required"
            return _found_in(rows.texts(knobs.text), row, knobs.pattern)

        return Verdict(kinds, labels, explain)


class Toxicity:
    """Drops records with a word of a list."""

    name = "toxic"

    def __init__(self, knobs: ToxicTerms) -> None:
        self._knobs = knobs
        # \b is Unicode's here: no word of the list is found inside another word, of any script.
        self._pattern = rf"(?i)\b(?:{'|'.join(re.escape(term) for term in knobs.terms)})\b"

    def judge(self, rows: Rows) -> Verdict:
        found = np.zeros(len(rows), bool)
        for texts in rows.texts(self._knobs.text):
            found |= texts.any(contains(texts.values, self._pattern))
        kinds, labels = first_reason(len(rows), [("a word of the list", found)])
        return Verdict(kinds, labels, lambda row: _found_in(rows.texts(self._knobs.text), row, self._pattern))


def contains(values: pl.Series, pattern: str) -> Mask:
    """Texts in which the expression is found."""
    return values.str.contains(pattern).to_numpy().astype(bool)


def _found_in(of_record: tuple[Texts, ...], row: int, pattern: str) -> str:
    for texts in of_record:
        for number, text in enumerate(texts.of(row)):
            match = pl.Series([text]).str.extract(f"({pattern})")[0]
            if match is not None:
                return f"{texts.name} {number}: {match[:80]!r} is found, none passes"
    raise LookupError(f"no text of record {row} matches {pattern!r}")
