"""Sorts records by id in bounded memory: what a data set is must not depend on the order in which records came."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer.datasets.records import schema

if TYPE_CHECKING:
    import pyarrow as pa

BUCKETS = 64
BUFFER_BYTES = 64 * 1024 * 1024
ROWS = 1024

# Of equal records the first of this order stays, in any order of input: what people made before what was
# generated, rated before unrated, and of two ratings the lower one, since doubt about an answer counts.
_ORDER = [("id", "ascending"), ("synthetic", "ascending"), ("rating", "ascending"), ("origin", "ascending")]
_ORDER += [("source_id", "ascending"), ("split", "ascending")]


class IdSorter:
    """Takes record batches in any order; gives them back sorted by id, each id once.

    Ids are digests, so they spread evenly: beyond 64 MB rows go to one of 64 files by their first bits, and one
    file is sorted in memory at a time. Memory stays below the larger of 64 MB and a sixty-fourth of the content, a few
    times over.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is an existing one for the files, which are removed as they are read."""
        self._folder = folder
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        self.repeated = 0
        """Records that were left out since an equal one is there; complete once all batches are given back."""

    def add(self, batch: "pa.RecordBatch") -> None:
        """Take a batch of `records.schema()`."""
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        if self._held_bytes > BUFFER_BYTES:
            self._spill()

    def sorted(self) -> Iterator["pa.RecordBatch"]:
        """All batches, 1024 rows each but the last of a bucket; to be called once."""
        import pyarrow as pa

        if not self._writers:
            held, self._held = self._held, []
            yield from self._in_order(pa.Table.from_batches(held, schema()))
            return
        self._spill()
        for writer in self._writers.values():
            writer.close()
        for bucket in sorted(self._writers):
            path = self._path(bucket)
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
                table = stream.read_all()
            path.unlink()
            yield from self._in_order(table)

    def _spill(self) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        table = pa.Table.from_batches(self._held, schema()).combine_chunks()
        self._held, self._held_bytes = [], 0
        first = [int(two, 16) for two in pc.utf8_slice_codeunits(table["id"], 0, 2).to_pylist()]
        buckets = np.asarray(first, dtype=np.int64) * BUCKETS // 256
        for bucket in np.unique(buckets).tolist():
            if bucket not in self._writers:
                self._writers[bucket] = pa.ipc.new_stream(pa.OSFile(str(self._path(bucket)), "wb"), schema())
            self._writers[bucket].write_table(table.take(pa.array(np.flatnonzero(buckets == bucket))))

    def _in_order(self, table: "pa.Table") -> Iterator["pa.RecordBatch"]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not len(table):
            return
        ordered = table.take(pc.sort_indices(table, options=pc.SortOptions(_ORDER)))
        ids = ordered["id"].combine_chunks()
        fresh = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
        kept = ordered.filter(pa.concat_arrays([pa.array([True]), _one(fresh)]))
        self.repeated += len(ordered) - len(kept)
        kept = _with_everybody(ordered, kept)
        yield from kept.combine_chunks().to_batches(max_chunksize=ROWS)

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket:02}.arrow"


def _with_everybody(ordered: "pa.Table", kept: "pa.Table") -> "pa.Table":
    """The kept records, each about all the people whom its equals are about: it goes with any of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    named = ordered.filter(pc.greater(pc.list_value_length(ordered["subjects"]), 0))
    if len(kept) == len(ordered) or not len(named):
        return kept
    people: dict[str, set[str]] = {}
    for record_id, subjects in zip(named["id"].to_pylist(), named["subjects"].to_pylist(), strict=True):
        people.setdefault(record_id, set()).update(subjects)
    at = kept.schema.get_field_index("subjects")
    everybody = [sorted(people.get(record_id, ())) for record_id in kept["id"].to_pylist()]
    return kept.set_column(at, kept.schema.field(at), pa.array(everybody, kept.schema.field(at).type))


def _one(array: "pa.Array | pa.ChunkedArray") -> "pa.Array":
    import pyarrow as pa

    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
