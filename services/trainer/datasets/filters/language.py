"""The language of texts, as far as it can be detected: py3langid, a naive Bayes classifier of byte n-grams."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from services.trainer.datasets.filters.recipe import LanguageFilter
from services.trainer.datasets.filters.rows import Rows, Texts
from services.trainer.datasets.filters.verdict import Verdict, first_reason

_READ = 1000
"""Characters that are looked at: more do not make it surer, and cost time."""
_NONE = "zxx"
"""What the classifier calls text of no language, such as numbers and code."""


class Language:
    """Drops records in which a text is surely of another language than requested."""

    name = "language"

    def __init__(self, knobs: LanguageFilter) -> None:
        self._knobs = knobs
        self._classify = _identifier().classify

    def judge(self, rows: Rows) -> Verdict:
        foreign: dict[int, str] = {}
        uncertain: set[int] = set()
        for texts in self._texts(rows):
            for row, found, certainty in self._languages(texts):
                if found == _NONE or certainty < self._knobs.certainty:
                    uncertain.add(row)
                elif found not in self._knobs.languages:
                    foreign.setdefault(row, f"{texts.name}: {found} with a probability of {certainty:.2f}")
        dropped = np.zeros(len(rows), bool)
        dropped[list(foreign)] = True
        wanted = " or ".join(self._knobs.languages)
        kinds, labels = first_reason(len(rows), [(f"not {wanted}", dropped)])
        return Verdict(
            kinds, labels, lambda row: f"{foreign[row]}, {wanted} is required", len(uncertain - foreign.keys())
        )

    def _texts(self, rows: Rows) -> tuple[Texts, ...]:
        return {
            "prompt": (rows.last_question,),
            "completion": (rows.completions,),
            "any": (rows.last_question, rows.completions),
        }[self._knobs.text]

    def _languages(self, texts: Texts) -> Iterator[tuple[int, str, float]]:
        """Record, language and its probability; 0 for a text that is too short to classify."""
        letters = texts.values.str.count_matches(r"\p{L}").to_list()
        for row, text, count in zip(texts.rows.tolist(), texts.values.to_list(), letters, strict=True):
            if count < self._knobs.min_characters:
                yield row, "", 0.0
            else:
                found, certainty = self._classify(text[:_READ])
                yield row, str(found), float(certainty)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
