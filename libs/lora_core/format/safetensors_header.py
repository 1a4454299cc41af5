"""What a safetensors file declares, checked against its size before anything is allocated. Needs no numpy.

Format: 8 bytes little-endian header length, a JSON header, the tensors without gaps.
Source: https://github.com/huggingface/safetensors (README, "Format").
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import pydantic_core

from lora_core.errors import AdapterNotFound, CorruptAdapter

MAX_HEADER = 16 << 20
"""Bytes of a header. The reference implementation takes 100 MB, which cost gigabytes once they are parsed."""
MAX_TENSORS = 65_536
"""Of one file: 128 experts with three projections in 60 layers have 46,080 matrices."""
MAX_NAME = 1_024
"""Characters of a tensor's name."""
_MARKS_PER_TENSOR = 12  # commas and opening brackets: a plain entry has 8
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a header: safetensors dtype name, shape, and byte range within the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Every tensor that the file declares, checked against the file's size.

    Raises AdapterNotFound, or CorruptAdapter where the header does not describe this file exactly.
    """
    if not path.is_file():
        raise AdapterNotFound(f"no safetensors file at {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise CorruptAdapter(path, f"{size} bytes are too few for a safetensors file")
        if prefix == b"version ":
            raise CorruptAdapter(path, "a git-lfs pointer, not the file that it stands for: run `git lfs pull`")
        (length,) = struct.unpack("<Q", prefix)
        if length > size - 8:
            raise CorruptAdapter(path, f"header of {length} bytes does not fit a file of {size} bytes")
        if length > MAX_HEADER:
            raise CorruptAdapter(path, f"header of {length} bytes, at most {MAX_HEADER}")
        raw = file.read(length)
    # Counted before parsing: what the parser builds is bounded by these, and many times as large as the text.
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MARKS_PER_TENSOR * MAX_TENSORS:
        raise CorruptAdapter(path, f"header describes more than {MAX_TENSORS} tensors")
    try:
        header = pydantic_core.from_json(raw, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise CorruptAdapter(path, f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise CorruptAdapter(path, "header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise CorruptAdapter(path, f"header describes {len(header)} tensors, at most {MAX_TENSORS}")
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    position = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            raise CorruptAdapter(path, f"tensor {name!r} starts at byte {entry.start}, expected {position}")
        position = entry.end
    if position != size:
        raise CorruptAdapter(path, f"file has {size} bytes, its header describes {position}: truncated or altered")
    return entries


def _entry(path: Path, name: str, value: object, base: int) -> TensorEntry:
    if len(name) > MAX_NAME:
        raise CorruptAdapter(path, f"tensor {name[:100]!r}…: its name has {len(name)} characters, at most {MAX_NAME}")
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise CorruptAdapter(path, f"tensor {name!r} lacks dtype, shape or data_offsets")
    if dtype not in _ITEM_BYTES:
        raise CorruptAdapter(path, f"tensor {name!r} has the unknown dtype {dtype[:50]!r}")
    if len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise CorruptAdapter(path, f"tensor {name!r} has an impossible shape: {str(shape[:9])[:200]}")
    if isinstance(start, bool) or isinstance(end, bool) or not 0 <= start <= end < 2**63:
        raise CorruptAdapter(path, f"tensor {name!r} has data_offsets that are no places in a file")
    if end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise CorruptAdapter(path, f"tensor {name!r}: shape {shape} of {dtype} does not fill bytes {start} to {end}")
    return TensorEntry(dtype, tuple(shape), base + start, base + end)
