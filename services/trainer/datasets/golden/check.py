"""Whether a frozen data set holds what has become golden since it was built."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.trainer.datasets.golden.index import GoldenIndex


@dataclass(frozen=True)
class GoldenRecords:
    """Records of a data set that golden data sets hold too: how many of how many, and by which data sets."""

    found: int
    records: int
    by_dataset: Mapping[str, int]
    """Golden data set as `id@version` → records of it; a record may be of several."""
    example: str
    """Why one of them counts, with the similarity that was found."""


def golden_records(path: Path, golden: GoldenIndex, threshold: float) -> GoldenRecords | None:
    """What a data set's Parquet file holds of golden data sets, judged as a build judges it; None for nothing.

    Args:
        path: records of `records.schema()`, both sides of the split.
        golden: all golden prompts.
        threshold: the estimated Jaccard similarity from which on prompts count as the same.
    """
    import pyarrow.parquet as pq

    from services.trainer.datasets.filters.golden import Golden
    from services.trainer.datasets.filters.recipe import GoldenOverlap
    from services.trainer.datasets.filters.rows import Rows

    by_dataset: dict[str, int] = {}
    judge = Golden(GoldenOverlap(threshold=threshold), golden, by_dataset)
    found, records, example = 0, 0, ""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            verdict = judge.judge(Rows(batch))
            dropped = (~verdict.keep).nonzero()[0]
            if len(dropped) and not example:
                example = verdict.explain(int(dropped[0]))
            found, records = found + len(dropped), records + batch.num_rows
    if not found:
        return None
    return GoldenRecords(found, records, {name: held for name, held in by_dataset.items() if held}, example)
