"""What a safetensors file declares, checked against its size before anything is allocated. Needs no numpy.

Format: 8 bytes little-endian header length, a JSON header, the tensors without gaps.
Source: https://github.com/huggingface/safetensors (README, "Format").
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from lora_core.errors import AdapterNotFound, CorruptAdapter

_MAX_HEADER = 100_000_000  # the limit of the reference implementation
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
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_MAX_HEADER, size - 8):
            raise CorruptAdapter(path, f"header of {length} bytes does not fit a file of {size} bytes")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptAdapter(path, f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise CorruptAdapter(path, "header is not a JSON object")
    header.pop("__metadata__", None)
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
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise CorruptAdapter(path, f"tensor {name!r} lacks dtype, shape or data_offsets")
    if dtype not in _ITEM_BYTES:
        raise CorruptAdapter(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not all(isinstance(n, int) and 0 <= n < 2**48 for n in shape) or len(shape) > 8:
        raise CorruptAdapter(path, f"tensor {name!r} has the impossible shape {shape}")
    if start < 0 or end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise CorruptAdapter(path, f"tensor {name!r}: shape {shape} of {dtype} does not fill bytes {start} to {end}")
    return TensorEntry(dtype, tuple(shape), base + start, base + end)
