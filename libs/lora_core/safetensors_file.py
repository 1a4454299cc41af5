"""Reading and writing safetensors files as raw bytes: no torch, no allocation before the header is checked.

Format: 8 bytes little-endian header length, a JSON header, the tensors without gaps.
Source: https://github.com/huggingface/safetensors (README, "Format").
"""

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_core.array import BFLOAT16, FLOAT16, FLOAT32, Array
from lora_core.errors import AdapterNotFound, CorruptAdapter

_MAX_HEADER = 100_000_000  # the limit of the reference implementation
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_NUMPY: dict[str, np.dtype[np.generic]] = {"F32": FLOAT32, "F16": FLOAT16, "BF16": BFLOAT16}
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}


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


def map_weights(path: Path) -> dict[str, Array]:
    """The file's tensors as read-only views of the mapped file; float32, float16 and bfloat16 only."""
    entries = read_header(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = np.frombuffer(mapped, dtype=np.uint8)
    whole.setflags(write=False)
    arrays: dict[str, Array] = {}
    for name, entry in entries.items():
        dtype = _NUMPY.get(entry.dtype)
        if dtype is None:
            raise CorruptAdapter(path, f"tensor {name!r} is {entry.dtype}, expected F32, F16 or BF16")
        data = whole[entry.start : entry.end]
        if entry.start % dtype.itemsize:
            data = data.copy()  # the format does not promise alignment
        arrays[name] = data.view(dtype).reshape(entry.shape)
    return arrays


def write_weights(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that the reference implementation reads; the data starts 8-byte aligned."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    # Widest dtype first and then by name: the order of the reference implementation, which keeps tensors aligned.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    for name, array in ordered:
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)))
        file.write(raw)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).view(np.uint8).data)
