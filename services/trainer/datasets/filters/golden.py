"""Records whose questions are in golden data sets: a model trained on them would be judged by what it has seen."""

from collections import Counter
from hashlib import sha256

import numpy as np

from fleet_kit.text_fingerprints import signatures_of_hashes
from services.trainer.datasets.filters.recipe import GoldenOverlap
from services.trainer.datasets.filters.rows import Rows
from services.trainer.datasets.filters.text_forms import exact_forms, hashes_of, word_forms
from services.trainer.datasets.filters.verdict import Verdict, first_reason
from services.trainer.datasets.golden.index import GoldenIndex, Overlap


class Golden:
    """Drops records of which any user message equals a golden prompt or is like one."""

    name = "golden"

    def __init__(self, knobs: GoldenOverlap, index: GoldenIndex, counts: dict[str, int]) -> None:
        self._threshold = knobs.threshold
        self._index = index
        self._counts = counts
        counts.update({reference: counts.get(reference, 0) for reference in index.references})

    def judge(self, rows: Rows) -> Verdict:
        texts = rows.questions
        digests = [sha256(form.encode()).digest() for form in exact_forms(texts.values).to_list()]
        signatures = signatures_of_hashes(*hashes_of(word_forms(texts.values)))
        alike = self._index.alike(signatures)
        found: dict[int, Overlap] = {}
        for number in np.nonzero(alike | [digest in self._index.equal for digest in digests])[0].tolist():
            overlap = self._index.overlap(digests[number], signatures[number], self._threshold)
            if overlap is not None:
                found.setdefault(int(texts.rows[number]), overlap)
        for reference, records in Counter(one for overlap in found.values() for one in overlap.references).items():
            self._counts[reference] += records
        dropped = np.zeros(len(rows), bool)
        dropped[list(found)] = True
        equal = np.zeros(len(rows), bool)
        equal[[row for row, overlap in found.items() if overlap.similarity == 1.0]] = True
        kinds, labels = first_reason(
            len(rows), [("a golden prompt", equal), (f"similarity of {self._threshold:g} and above", dropped)]
        )

        def explain(row: int) -> str:
            overlap = found[row]
            where = ", ".join(overlap.references)
            return f"prompt: similarity {overlap.similarity:.2f} to one of {where}, below {self._threshold:g} passes"

        return Verdict(kinds, labels, explain)
