"""Where the buffers of an Arrow IPC file lie, read without trusting it.

`pyarrow` would decompress, allocate or import on behalf of a file before we could look at it; an adapter needs only
the byte ranges of one uncompressed record batch. Every offset is checked against the file before it is used.
Source: https://arrow.apache.org/docs/format/Columnar.html (IPC file format, Message.fbs, File.fbs).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

MAGIC = b"ARROW1"
_START = 8  # the magic, padded
_MAX_METADATA = 64 << 20
_SCHEMA, _RECORD_BATCH = 1, 3


class Malformed(ValueError):
    """Not the expected Arrow file; the message gives the place."""


@dataclass(frozen=True)
class Batch:
    """One record batch of a file: its columns and their types, metadata, and each buffer's (start, length).

    schema_in_front: whether the file has its schema before the batch too, and not in the footer alone.
    """

    columns: tuple[tuple[str, pa.DataType], ...]
    metadata: Mapping[bytes, bytes]
    rows: int
    buffers: tuple[tuple[int, int], ...]
    schema_in_front: bool = True


@dataclass(frozen=True)
class _Message:
    kind: int
    header: "_Table"
    start: int
    body: int
    end: int


def read_single_batch(data: memoryview) -> Batch:
    """The only record batch of the Arrow IPC file in `data`. Raises Malformed; allocates nothing but the schema."""
    size = len(data)
    if size < 2 * _START + len(MAGIC) or bytes(data[:6]) != MAGIC:
        raise Malformed("not an Arrow IPC file")
    if bytes(data[-6:]) != MAGIC:
        raise Malformed("truncated: the closing magic is missing")
    (footer_length,) = struct.unpack_from("<i", data, size - 10)
    if not 0 < footer_length <= min(size - 18, _MAX_METADATA):
        raise Malformed("truncated: the footer does not fit the file")
    try:
        first = batch = _message(data, _START)
        in_front = first.kind == _SCHEMA and first.body == first.end
        if in_front:
            batch = _message(data, first.end)
            described = first.header
        else:
            # Files of apache-arrow for JavaScript begin with the batch. Every reader takes the footer's schema.
            described = _footer_schema(data, footer_length, batch)
        if batch.kind != _RECORD_BATCH:
            raise Malformed("neither the first message nor the one behind a schema is a record batch")
        if described.int16(0):
            raise Malformed("big-endian, expected little-endian")
        rows, buffers = _buffers(batch)
    except struct.error:
        raise Malformed("an offset points outside the file") from None
    try:
        if in_front:
            schema = pa.ipc.read_schema(pa.py_buffer(data[first.start : first.body]))
        else:
            with pa.ipc.open_file(pa.py_buffer(data)) as opened:  # of which the footer alone is read
                schema = opened.schema
        columns = tuple((field.name, field.type) for field in schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Malformed(f"schema: {error}") from None
    return Batch(columns, schema.metadata or {}, rows, buffers, in_front)


def _footer_schema(data: memoryview, length: int, batch: "_Message") -> "_Table":
    """The schema in the footer, whose one block has to be this batch. Source: File.fbs."""
    end = len(data) - 10
    footer = _Table.root(data[end - length : end])
    blocks = footer.blocks(3)
    if blocks != [(batch.start, batch.body - batch.start, batch.end - batch.body)] or footer.blocks(2):
        raise Malformed("without a schema in front, the footer's only block has to be the first message")
    return footer.table(1)


def _message(data: memoryview, position: int) -> _Message:
    """The encapsulated message at `position`: continuation marker, metadata length, flatbuffer, body."""
    marker, length = struct.unpack_from("<Ii", data, position)
    metadata = position + 8
    if marker != 0xFFFFFFFF or not 0 < length <= min(len(data) - metadata, _MAX_METADATA):
        raise Malformed(f"no message at byte {position}")
    view = data[metadata : metadata + length]
    table = _Table.root(view)
    body = metadata + length
    body_length = table.int64(3)
    if not 0 <= body_length <= len(data) - body:
        raise Malformed(f"a message body of {body_length} bytes does not fit the file: truncated")
    return _Message(table.uint8(1), table.table(2), position, body, body + body_length)


def _buffers(message: _Message) -> tuple[int, tuple[tuple[int, int], ...]]:
    if message.header.has(3):
        raise Malformed("compressed, expected plain buffers")
    ranges: list[tuple[int, int]] = []
    end = message.body
    for offset, length in message.header.pairs(2):
        start = message.body + offset
        if offset < 0 or length < 0 or start + length > message.end:
            raise Malformed(f"a buffer of {length} bytes at {offset} lies outside its message")
        if length:
            if start < end:
                raise Malformed("buffers overlap")
            end = start + length
        ranges.append((start, length))
    return message.header.int64(0), tuple(ranges)


@dataclass(frozen=True)
class _Table:
    """A flatbuffer table: fields by number, absent ones 0. Source: https://flatbuffers.dev/internals"""

    view: memoryview
    position: int

    @classmethod
    def root(cls, view: memoryview) -> "_Table":
        return cls(view, _at("<I", view, 0))

    def blocks(self, number: int) -> list[tuple[int, int, int]]:
        """A vector of Block: offset, length of metadata and of body."""
        position = self._field(number)
        if not position:
            return []
        start = position + _at("<I", self.view, position)
        count = _at("<I", self.view, start)
        if start + 4 + 24 * count > len(self.view):
            raise Malformed("a vector does not fit its message")
        numbers = struct.unpack_from("<" + "qi4xq" * count, self.view, start + 4)
        return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))

    def _field(self, number: int) -> int:
        vtable = self.position - _at("<i", self.view, self.position)
        if 4 + 2 * number >= _at("<H", self.view, vtable):
            return 0
        offset = _at("<H", self.view, vtable + 4 + 2 * number)
        return self.position + offset if offset else 0

    def has(self, number: int) -> bool:
        return self._field(number) != 0

    def uint8(self, number: int) -> int:
        return self._scalar("<B", number)

    def int16(self, number: int) -> int:
        return self._scalar("<h", number)

    def int64(self, number: int) -> int:
        return self._scalar("<q", number)

    def _scalar(self, code: str, number: int) -> int:
        position = self._field(number)
        return _at(code, self.view, position) if position else 0

    def table(self, number: int) -> "_Table":
        position = self._field(number)
        if not position:
            raise Malformed("a message lacks its header")
        return _Table(self.view, position + _at("<I", self.view, position))

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """A vector of structs of two int64."""
        position = self._field(number)
        if not position:
            return []
        start = position + _at("<I", self.view, position)
        count = _at("<I", self.view, start)
        if start + 4 + 16 * count > len(self.view):
            raise Malformed("a vector does not fit its message")
        numbers = struct.unpack_from(f"<{2 * count}q", self.view, start + 4)
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def _at(code: str, view: memoryview, position: int) -> int:
    if position < 0:  # struct counts a negative offset from the end
        raise Malformed("an offset points before its message")
    (number,) = struct.unpack_from(code, view, position)
    return int(number)
