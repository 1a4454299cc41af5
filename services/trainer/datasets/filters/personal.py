"""Personal data that has a form: e-mail addresses, telephone, account and card numbers, IP addresses."""

import numpy as np
import pyarrow as pa

from personal_data import CANDIDATE, PersonalKind, masked
from services.trainer.datasets.filters.patterns import contains
from services.trainer.datasets.filters.recipe import PersonalData
from services.trainer.datasets.filters.rows import Mask, Rows
from services.trainer.datasets.filters.verdict import Verdict, first_reason
from services.trainer.datasets.records import Record, schema


class Personal:
    """Finds personal data, and masks it or drops its records."""

    name = "personal"

    def __init__(self, knobs: PersonalData) -> None:
        self._knobs = knobs

    def judge(self, rows: Rows) -> Verdict:
        """Drops records with any of the kinds; the reason names the kind, never the data."""
        found: dict[int, PersonalKind] = {}
        for row in np.nonzero(_candidates(rows))[0].tolist():
            texts = [*rows.prompts.of(row), *rows.completions.of(row)]
            if kind := next((kind for text in texts for kind in self.masked(text)[1]), None):
                found[row] = kind
        reasons = [
            (kind.value, _marked(len(rows), [r for r, k in found.items() if k is kind])) for kind in PersonalKind
        ]
        kinds, labels = first_reason(len(rows), reasons)
        return Verdict(kinds, labels, lambda row: f"text: data of the kind {found[row].value}, none passes")

    def mask(self, rows: Rows) -> tuple[Rows, Mask, dict[str, int]]:
        """The records with the data replaced, which ones changed, and how often each kind was found in a record."""
        changed: list[int] = []
        counts: dict[str, int] = {}
        values: list[dict[str, object]] = []
        for row in np.nonzero(_candidates(rows))[0].tolist():
            (record,) = rows.batch.slice(row, 1).to_pylist()
            found: set[PersonalKind] = set()
            for message in record["prompt"]:
                message["content"], kinds = self.masked(message["content"])
                found |= kinds
            for number, completion in enumerate(record["completions"]):
                record["completions"][number], kinds = self.masked(completion)
                found |= kinds
            if found:
                changed.append(row)
                values.append(Record.of_values(record).values())
                for kind in found:
                    counts[kind.value] = counts.get(kind.value, 0) + 1
        if not changed:
            return rows, np.zeros(len(rows), bool), counts
        order = np.arange(len(rows))
        order[changed] = len(rows) + np.arange(len(changed))
        both = pa.Table.from_batches([rows.batch, pa.RecordBatch.from_pylist(values, schema=schema())])
        (batch,) = both.take(pa.array(order)).combine_chunks().to_batches()
        return Rows(batch), _marked(len(rows), changed), counts

    def masked(self, text: str) -> tuple[str, set[PersonalKind]]:
        """The text with `[KIND]` in place of what was found."""
        return masked(text, self._knobs.kinds)


def _candidates(rows: Rows) -> Mask:
    found = np.zeros(len(rows), bool)
    for texts in (rows.prompts, rows.completions):
        found |= texts.any(contains(texts.values, CANDIDATE))
    return found


def _marked(count: int, rows: list[int]) -> Mask:
    marked = np.zeros(count, bool)
    marked[rows] = True
    return marked
