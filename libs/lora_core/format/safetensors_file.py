"""Reading and writing the tensors of a safetensors file as raw bytes, without torch."""

import json
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lora_core.array import BFLOAT16, FLOAT16, FLOAT32, Array
from lora_core.errors import CorruptAdapter
from lora_core.format.safetensors_header import read_header

_NUMPY: dict[str, np.dtype[np.generic]] = {"F32": FLOAT32, "F16": FLOAT16, "BF16": BFLOAT16}
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}


def map_weights(path: Path, only: str | None = None) -> dict[str, Array]:
    """The file's tensors as read-only views of the mapped file; float32, float16 and bfloat16 only.

    only: name of the one tensor to read; the others are not looked at.
    """
    entries = read_header(path)
    first, length = 0, 0
    if only is not None:
        entries = {only: entries[only]}
        # The rest of a base model's file may be far larger than the memory that is allowed here.
        first = entries[only].start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = max(1, entries[only].end - first)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=first)
    whole = np.frombuffer(mapped, dtype=np.uint8)
    whole.setflags(write=False)
    arrays: dict[str, Array] = {}
    for name, entry in entries.items():
        dtype = _NUMPY.get(entry.dtype)
        if dtype is None:
            raise CorruptAdapter(path, f"tensor {name!r} is {entry.dtype}, expected F32, F16 or BF16")
        data = whole[entry.start - first : entry.end - first]
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
