"""Records through filters, as the building of a data set does it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fleet_kit.text_fingerprints import SCHEME, digest, signatures
from services.trainer.datasets.filters import FilterRecipe, FilterReport, apply
from services.trainer.datasets.golden.index import GoldenIndex, GoldenPrint
from services.trainer.datasets.records import Kind, Message, Record, prompt_messages, schema


def record(prompt: str | tuple[Message, ...], *completions: str, **more: Any) -> Record:
    """A record; without a completion it has a short one."""
    talk = prompt_messages(prompt) if isinstance(prompt, str) else prompt
    kind = more.pop("kind", Kind.COMPLETION if len(completions) < 2 else Kind.RANKING)
    return Record(kind, talk, completions or ("Yes, it does.",), **more)


def batches(records: Sequence[Record], size: int = 1000) -> Iterable[pa.RecordBatch]:
    """The records as Arrow batches."""
    for start in range(0, len(records), size):
        yield pa.RecordBatch.from_pylist([one.values() for one in records[start : start + size]], schema=schema())


def golden(*prompts: str, reference: str = "exam@1.0.0", scheme: str = SCHEME) -> GoldenIndex:
    """An index of golden prompts."""
    made = zip(prompts, signatures(prompts), strict=True)
    return GoldenIndex(
        tuple(GoldenPrint(reference, digest(text), one.astype("<u4").tobytes(), scheme) for text, one in made)
    )


@dataclass(frozen=True)
class Filtered:
    """What came through, and the report of the rest."""

    kept: list[Record]
    report: FilterReport

    def reasons(self, name: str) -> list[str]:
        """Why the filter dropped its samples."""
        return [one.reason for one in self.report.filters[name].samples]


def filtered(
    records: Sequence[Record], *, golden: GoldenIndex | None = None, size: int = 1000, **recipe: Any
) -> Filtered:
    """Run a recipe over the records; exact duplicates stay unless it asks for that filter."""
    report = FilterReport()
    validated = FilterRecipe.model_validate({"exact_duplicates": None, "samples": 50, **recipe})
    out = apply(iter(batches(records, size)), validated, golden, report)
    return Filtered([Record.of_values(row) for batch in out for row in batch.to_pylist()], report)
