"""Completions without content."""

import re

import numpy as np
import polars as pl

from services.trainer.datasets.filters.patterns import contains
from services.trainer.datasets.filters.recipe import Boilerplate
from services.trainer.datasets.filters.rows import Indices, Rows
from services.trainer.datasets.filters.verdict import Verdict, first_reason

_JUDGED = 20
"""Characters below which the share of letters is not checked: `42.` is an answer."""


class DropBoilerplate:
    """Drops stock phrases, repeated characters, blank completions and those of hardly any letters."""

    name = "boilerplate"

    def __init__(self, knobs: Boilerplate) -> None:
        self._knobs = knobs
        self._phrases = rf"(?i)(?:{'|'.join(re.escape(one) for one in knobs.phrases)})" if knobs.phrases else None

    def judge(self, rows: Rows) -> Verdict:
        knobs, texts = self._knobs, rows.completions
        values = texts.values
        # Curly apostrophes are written as often as straight ones.
        plain = values.str.replace_all("’", "'", literal=True)
        phrase = contains(plain, self._phrases) if self._phrases else np.zeros(len(values), bool)
        longest = _longest_runs(values, knobs.max_repeated)
        visible = values.str.count_matches(r"\S").to_numpy().astype(np.int64)
        letters = values.str.count_matches(r"[\p{L}\p{M}\p{N}]").to_numpy() / np.maximum(visible, 1)
        sparse = (letters < knobs.min_letters) & (visible >= _JUDGED)
        kinds, labels = first_reason(
            len(rows),
            [
                ("blank", texts.any(visible == 0)),
                ("stock phrase", texts.any(phrase)),
                (
                    f"one character more than {knobs.max_repeated} times in a row",
                    texts.any(longest > knobs.max_repeated),
                ),
                (f"share of letters below {knobs.min_letters:g}", texts.any(sparse)),
            ],
        )

        def explain(row: int) -> str:
            at = np.nonzero(texts.rows == row)[0]
            match kinds[row]:
                case 0:
                    return "completion: blank, text is required"
                case 1:
                    found = plain.gather(at).str.extract(f"({self._phrases})").drop_nulls()[0]
                    return f"completion: {found!r} is found, no stock phrase passes"
                case 2:
                    found = int(longest[at].max())
                    return f"completion: one character {found} times in a row, at most {knobs.max_repeated} pass"
                case _:
                    found = float(letters[at][sparse[at]].min())
                    return f"completion: {found:.2f} of it are letters, at least {knobs.min_letters:g} are required"

        return Verdict(kinds, labels, explain)


def _longest_runs(values: pl.Series, bound: int) -> Indices:
    """The longest run of one character in each text, where it is beyond the bound; 0 elsewhere."""
    codes = np.frombuffer("\n".join(values.to_list()).encode("utf-32-le"), np.uint32)
    begin = np.concatenate(([0], np.nonzero(np.diff(codes))[0] + 1))
    lengths = np.diff(begin, append=len(codes))
    long = np.nonzero(lengths > bound)[0]
    long = long[[not chr(code).isspace() for code in codes[begin[long]]]]
    ends = np.cumsum(values.str.len_chars().to_numpy().astype(np.int64) + 1)
    longest = np.zeros(len(values), np.int64)
    np.maximum.at(longest, np.searchsorted(ends, begin[long], side="right"), lengths[long])
    return longest
