"""Filters: a stream of record batches in, the records that are fit for training out, and a report of the others."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from services.trainer.datasets.filters.recipe import FilterRecipe
from services.trainer.datasets.filters.report import FilterReport

if TYPE_CHECKING:
    import pyarrow as pa

    from services.trainer.datasets.golden.index import GoldenIndex

__all__ = ["FilterRecipe", "FilterReport", "apply"]


def apply(
    batches: "Iterator[pa.RecordBatch]", recipe: FilterRecipe, golden: "GoldenIndex | None", report: FilterReport
) -> "Iterator[pa.RecordBatch]":
    """The records that pass, in their order; batches that lose all their records are left out.

    Args:
        batches: of `records.schema()`, any length each.
        golden: what golden data sets hold; None only where there is none.
        report: counts as the batches are taken; complete once they are exhausted.
    """
    from services.trainer.datasets.filters.chain import Chain

    return Chain(recipe, golden, report).run(batches)
