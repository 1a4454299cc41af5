"""The file of a frozen data set: records sorted by id as Parquet, and the digest that is the data set's id.

Equal records give equal bytes under one version of pyarrow: row groups of 4096 rows, zstd at level 3, no dates. The id
is a digest of the records' content rather than of these bytes, so that it outlives the library.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer.datasets.records import Kind, Record, canonical, schema

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 4096
COMPRESSION = "zstd"
COMPRESSION_LEVEL = 3
_ORIGINS = 50


@dataclass(frozen=True)
class FrozenFile:
    """A written data set. `rated` counts records with a rating, of which `mean_rating` is the mean."""

    dataset_id: str
    samples: int
    validation_samples: int
    synthetic: int
    rated: int
    mean_rating: float | None
    origins: dict[str, int]
    """Records of each origin, the 50 most frequent."""


class DatasetDigest:
    """SHA-256 over domain and kind, then a line `id split rating` of each record in the order of ids."""

    def __init__(self, domain: str, kind: Kind) -> None:
        self._digest = hashlib.sha256(canonical([domain, kind.value]).encode() + b"\n")

    def add(self, record_id: str, split: str, rating: float | None) -> None:
        """The next record; ids must come in order, each once."""
        self._digest.update(canonical([record_id, split, rating]).encode() + b"\n")

    @property
    def dataset_id(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()


def dataset_id_of(domain: str, kind: Kind, frozen: list[Record]) -> str:
    """The id of a data set of these records, in any order; each id once."""
    digest = DatasetDigest(domain, kind)
    for record in sorted(frozen, key=lambda one: one.record_id):
        digest.add(record.record_id, record.split, record.rating)
    return digest.dataset_id


def write(batches: Iterator["pa.RecordBatch"], path: Path, *, domain: str, kind: Kind) -> FrozenFile:
    """Write batches, which come sorted by id with each id once, holding a row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest, counted = DatasetDigest(domain, kind), Counter[str]()
    origins, total_rating = Counter[str](), 0.0
    waiting: list[pa.RecordBatch] = []
    rows = 0
    with pq.ParquetWriter(path, schema(), compression=COMPRESSION, compression_level=COMPRESSION_LEVEL) as writer:
        for batch in batches:
            columns = (batch[name].to_pylist() for name in ("id", "split", "rating", "synthetic", "origin"))
            for record_id, split, rating, synthetic, origin in zip(*columns, strict=True):
                digest.add(record_id, split, rating)
                counted[split] += 1
                counted["synthetic"] += synthetic
                counted["rated"] += rating is not None
                total_rating += rating or 0.0
                origins[origin] += 1
            waiting.append(batch)
            rows += len(batch)
            while rows >= ROWS_PER_GROUP:
                table = pa.Table.from_batches(waiting)
                writer.write_table(table.slice(0, ROWS_PER_GROUP), row_group_size=ROWS_PER_GROUP)
                rest = table.slice(ROWS_PER_GROUP)
                waiting, rows = rest.to_batches(), len(rest)
        if rows:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=ROWS_PER_GROUP)
    rated = counted["rated"]
    return FrozenFile(
        dataset_id=digest.dataset_id,
        samples=counted["train"] + counted["validation"],
        validation_samples=counted["validation"],
        synthetic=counted["synthetic"],
        rated=rated,
        mean_rating=total_rating / rated if rated else None,
        origins=dict(origins.most_common(_ORIGINS)),
    )


def lines(path: Path, split: str | None = None) -> Iterator[str]:
    """The records of a data set's file as lines of JSON (`Record.values`), in its order; of one side of the split."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            if split in (None, row["split"]):
                yield json.dumps(row, ensure_ascii=False) + "\n"
