"""The filters of a recipe one behind the other, with their report."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from services.trainer.datasets.filters.boilerplate import DropBoilerplate
from services.trainer.datasets.filters.duplicates import Duplicates
from services.trainer.datasets.filters.golden import Golden
from services.trainer.datasets.filters.language import Language
from services.trainer.datasets.filters.length import Length
from services.trainer.datasets.filters.near_duplicates import DropNearDuplicates
from services.trainer.datasets.filters.patterns import Pattern, Toxicity
from services.trainer.datasets.filters.personal import Personal
from services.trainer.datasets.filters.rating import Rating
from services.trainer.datasets.filters.recipe import FilterRecipe
from services.trainer.datasets.filters.report import Dropped, FilterReport
from services.trainer.datasets.filters.rows import Mask, Rows
from services.trainer.datasets.filters.verdict import Filter, Verdict
from services.trainer.datasets.golden.index import GoldenIndex

_ROWS = 8192
"""Rows from which on a batch is judged: fewer cost more each, and up to twice as many bound the memory."""


class Chain:
    """One stream's filters. Golden data sets come first, so that what is masked cannot hide what is golden."""

    def __init__(self, recipe: FilterRecipe, golden: GoldenIndex | None, report: FilterReport) -> None:
        self._report = report
        self._samples = recipe.samples
        self._golden = Golden(recipe.golden, golden, report.golden) if golden and golden.prints else None
        self._personal = Personal(recipe.personal) if recipe.personal else None
        self._masks = recipe.personal is not None and recipe.personal.action == "mask"
        self._filters = tuple(_filters(recipe))
        for name in ("golden", *(["personal"] if self._personal else []), *(one.name for one in self._filters)):
            report.of(name)

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What passes, batch by batch."""
        for batch in _of_like_length(batches):
            rows = self._passed(Rows(batch))
            if len(rows):
                yield rows.batch

    def _passed(self, rows: Rows) -> Rows:
        self._report.received += len(rows)
        if self._golden:
            rows = self._without_dropped(rows, self._golden)
        if self._personal:
            rows = self._masked(rows, self._personal) if self._masks else self._without_dropped(rows, self._personal)
        for one in self._filters:
            if not len(rows):
                break
            rows = self._without_dropped(rows, one)
        self._report.kept += len(rows)
        return rows

    def _without_dropped(self, rows: Rows, one: Filter) -> Rows:
        if not len(rows):
            return rows
        verdict = one.judge(rows)
        self._note(rows, one.name, verdict)
        return rows.kept(verdict.keep)

    def _masked(self, rows: Rows, personal: Personal) -> Rows:
        masked, changed, kinds = personal.mask(rows)
        if not changed.any():
            return rows
        count = self._report.of(personal.name)
        count.changed += int(changed.sum())
        for kind, records in kinds.items():
            count.reasons[kind] = count.reasons.get(kind, 0) + records
        if self._golden is None:
            return masked
        # Two prompts that differed in an address only are equal now.
        again = masked.kept(changed)
        verdict = self._golden.judge(again)
        self._note(again, self._golden.name, verdict)
        keep: Mask = np.ones(len(masked), bool)
        keep[np.nonzero(changed)[0][~verdict.keep]] = False
        return masked.kept(keep)

    def _note(self, rows: Rows, name: str, verdict: Verdict) -> None:
        count = self._report.of(name)
        count.uncertain += verdict.uncertain
        dropped = np.nonzero(~verdict.keep)[0]
        for kind, records in zip(*np.unique(verdict.kinds[dropped], return_counts=True), strict=True):
            self._report.count(name, verdict.labels[kind], int(records))
        for row in dropped[: max(0, self._samples - len(count.samples))].tolist():
            self._report.show(name, self._shown(rows, row, verdict.explain(row)))

    def _shown(self, rows: Rows, row: int, reason: str) -> Dropped:
        prompt = rows.last_question.of(row)[0]
        completion = next(iter(rows.completions.of(row)), "")
        if self._personal:
            # A report that quotes what must not be in the data would carry it further than the data.
            prompt, completion = self._personal.masked(prompt)[0], self._personal.masked(completion)[0]
            reason = self._personal.masked(reason)[0]
        return Dropped(id=rows.record_id(row), reason=reason, prompt=prompt, completion=completion)


def _of_like_length(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            waiting.append(batch.slice(start, _ROWS))
            if sum(one.num_rows for one in waiting) >= _ROWS:
                yield pa.concat_batches(waiting)
                waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def _filters(recipe: FilterRecipe) -> Iterator[Filter]:
    """Cheap ones first; duplicates last, so that of two equal records not the one stays that another filter drops."""
    if recipe.length:
        yield Length(recipe.length)
    if recipe.rating:
        yield Rating(recipe.rating)
    yield from map(Pattern, recipe.patterns)
    if recipe.boilerplate:
        yield DropBoilerplate(recipe.boilerplate)
    if recipe.toxic:
        yield Toxicity(recipe.toxic)
    if recipe.language:
        yield Language(recipe.language)
    if recipe.exact_duplicates:
        yield Duplicates(recipe.exact_duplicates)
    if recipe.near_duplicates:
        yield DropNearDuplicates(recipe.near_duplicates)
