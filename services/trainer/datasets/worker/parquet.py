"""Rows of a Parquet file in bounded memory, for any content.

A dictionary holds a value once and its rows name it by number, so that a file of 700 bytes can hold 2,000 rows of 1 MB.
Text is therefore read as dictionaries, and what a batch would come to is counted before any row of it is made.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.trainer.datasets.columns import Row
from services.trainer.datasets.dataset import InvalidSample

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_ROW_BYTES = 16 * 1024 * 1024
"""What one row of any source may hold."""
MAX_RATIO = 200
"""Declared bytes for each byte of a file, beyond `_UNSUSPICIOUS`: text shrinks to a tenth, a bomb to a millionth."""
MAX_NESTED_VALUES = 16_000_000
"""Values of a nested column in one row group."""
MAX_LEVELS = 12
_UNSUSPICIOUS = 256 * 1024 * 1024
_BATCH_BYTES = 32 * 1024 * 1024
_BATCH = 1024
_FOOTER_TEXT = 16 * 1024 * 1024


class TooLarge(Exception):
    """A file holds more than it may. `place` is where, empty for the whole file."""

    def __init__(self, place: str, found: str, expected: str) -> None:
        super().__init__(f"{place}: {found}, expected {expected}")
        self.place = place
        self.found = found
        self.expected = expected


def parquet_rows(path: Path, *, limit: int) -> Iterator[list[Row | InvalidSample]]:
    """Rows in lists that come to 16 MiB at most; see `rows_of`.

    Args:
        limit: bytes that all rows together may hold once they are decoded.

    Raises:
        TooLarge: what the file declares, a row or all rows together are larger than they may be.
        pyarrow.ArrowInvalid: it is no Parquet file.
    """
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    _check(metadata, path.stat().st_size)
    text = [
        metadata.schema.column(number).path
        for number in range(metadata.num_columns)
        if metadata.schema.column(number).physical_type == "BYTE_ARRAY"
    ]
    number, held = 0, 0
    # `buffer_size`: a chunk of a column is read piece by piece, not as a whole.
    with pq.ParquetFile(
        path, read_dictionary=text, buffer_size=1024 * 1024, thrift_string_size_limit=_FOOTER_TEXT
    ) as opened:
        for batch in opened.iter_batches(batch_size=_batch_size(metadata)):
            for part in _parts(batch, number):
                held += held_bytes(part)
                if held > limit:
                    raise TooLarge("", f"rows of more than {limit} bytes once decoded", f"at most {limit}")
                number += part.num_rows
                yield rows_of(part)


def rows_of(batch: "pa.RecordBatch | pa.Table") -> list[Row | InvalidSample]:
    """The rows of a batch. One with text that is no UTF-8, which Arrow does not look at, is given as its fault."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_row_or_fault(batch.slice(number, 1)) for number in range(batch.num_rows)]


def _row_or_fault(row: "pa.RecordBatch | pa.Table") -> Row | InvalidSample:
    values: dict[str, object] = {}
    for name in row.schema.names:
        try:
            (values[name],) = row.column(name).to_pylist()
        except UnicodeDecodeError as error:
            return InvalidSample(name[:100], f"the byte 0x{error.object[error.start]:02x}", "UTF-8")
    return values


def held_bytes(batch: "pa.RecordBatch") -> int:
    """Bytes of a batch's values, each dictionary entry counted as often as it is named."""
    return sum(_bytes(column) for column in batch.columns)


def _check(metadata: "pq.FileMetaData", size: int) -> None:
    declared = 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column, levels = metadata.row_group(group).column(number), metadata.schema.column(number)
            declared += max(0, column.total_uncompressed_size)
            if levels.max_definition_level > MAX_LEVELS:
                found = f"column {levels.path[:200]!r} of {levels.max_definition_level} levels"
                raise TooLarge("", found, f"at most {MAX_LEVELS}")
            if levels.max_repetition_level and column.num_values > MAX_NESTED_VALUES:
                found = f"{column.num_values} values in column {levels.path[:200]!r}"
                raise TooLarge(f"row group {group}", found, f"at most {MAX_NESTED_VALUES}")
    if declared > max(_UNSUSPICIOUS, MAX_RATIO * size):
        raise TooLarge("", f"{declared} bytes declared by a file of {size}", f"at most {MAX_RATIO} for each byte")


def _batch_size(metadata: "pq.FileMetaData") -> int:
    """Rows that are decoded at once: fewer where they are declared to be large."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(_BATCH, _BATCH_BYTES // max(1, largest)))


def _parts(batch: "pa.RecordBatch", before: int) -> Iterator["pa.RecordBatch"]:
    """The batch in parts of `MAX_ROW_BYTES` at most; `before` is the number of rows before it."""
    held = held_bytes(batch)
    if held <= MAX_ROW_BYTES:
        yield batch
        return
    if batch.num_rows == 1:
        raise TooLarge(f"row {before + 1}", f"{held} bytes", f"at most {MAX_ROW_BYTES}")
    half = batch.num_rows // 2
    yield from _parts(batch.slice(0, half), before)
    yield from _parts(batch.slice(half), before + half)


def _bytes(array: Any) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, held = array.type, 8 * len(array)
    if pa.types.is_dictionary(kind):
        if not len(array):
            return 0
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return held + (pc.sum(pc.take(lengths, array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return held + sum(_bytes(field) for field in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return held + _bytes(array.flatten())
    if pa.types.is_map(kind):
        # Its children are those of the whole array, of which this one may be a slice.
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return held + sum(_bytes(side.slice(start, end - start)) for side in (array.keys, array.items))
    return held + int(array.nbytes)
