"""A card as the bytes of an adapter file."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from lora_core.array import Array, dtype_name
from lora_core.card import LoRACard
from lora_core.format.arrow_ipc import read_single_batch
from lora_core.format.arrow_layout import (
    ALIGNMENT,
    ARROW_TYPES,
    CARD,
    CHECKSUM,
    DIGEST,
    FORMAT_VERSION,
    PADDING,
    UNSEALED,
    VERSION,
    checksum_of,
    tensors_span,
)
from lora_core.format.stored_card import StackedTensor, StoredCard, StoredStack
from lora_core.quantisation import BLOCK, quantise
from lora_core.stack import projection, stacked

Storage = Literal["plain", "int8", "int4"]
_LABELS = {"a": "lora_A", "b": "lora_B"}  # as PEFT calls them


@dataclass(frozen=True, eq=False)
class _Column:
    """One column: its name, what its values are, the shape that is stored, and its bytes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    data: Array

    @property
    def field(self) -> pa.Field:
        return _field(self.name, self.kind, self.shape)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data.view(np.uint8).data).hexdigest()


def _field(name: str, kind: str, shape: tuple[int, ...]) -> pa.Field:
    tensor_type = pa.fixed_shape_tensor(ARROW_TYPES[kind], shape)
    return pa.field(name, tensor_type, nullable=False, metadata={"dtype": kind})


def serialise(card: LoRACard, storage: Storage) -> tuple[bytearray, str]:
    stacks: list[StoredStack] = []
    columns: list[_Column] = []
    for number, stack in enumerate(stacked(card.weights)):
        tensors: dict[str, StackedTensor] = {}
        for name, array in stack.arrays.items():
            label = f"{number}.{projection(stack.modules[0])}.{_LABELS.get(name, name)}"
            own = _columns(label, array, storage if name in ("a", "b") else "plain")
            columns += own
            tensors[name] = _describe(array, own)
        alphas = tuple(None if alpha is None else float(alpha) for alpha in stack.alphas)
        stacks.append(StoredStack(modules=stack.modules, alphas=None if set(alphas) == {None} else alphas, **tensors))
    document = StoredCard(
        name=card.name,
        rank=card.rank,
        alpha=float(card.alpha),
        rslora=card.rslora,
        target_modules=tuple(card.target_modules),
        metadata=dict(card.metadata),
        stacks=tuple(stacks),
    ).to_json()
    digest = hashlib.sha256(document).hexdigest()
    # Must occur nowhere else in the file: it is derived from the digest, which nothing can contain by chance.
    placeholder = hashlib.sha256(b"unsealed " + digest.encode()).hexdigest()[: len(UNSEALED)].encode()
    metadata = {
        VERSION: str(FORMAT_VERSION).encode(),
        CARD: document,
        DIGEST: digest.encode(),
        CHECKSUM: placeholder,
    }
    data = _aligned(columns, metadata)
    checksum = checksum_of(memoryview(data), placeholder, tensors_span(read_single_batch(memoryview(data))))
    return data.replace(placeholder, checksum), digest


def _columns(label: str, array: Array, storage: Storage) -> list[_Column]:
    if storage == "plain":
        return [_Column(label, dtype_name(array), array.shape, np.ascontiguousarray(array))]
    packed = quantise(array, storage)
    values, scales = np.ascontiguousarray(packed.values), np.ascontiguousarray(packed.scales)
    return [
        _Column(label, storage, values.shape, values),
        _Column(f"{label}.scales", "float16", scales.shape, scales),
    ]


def _describe(array: Array, columns: list[_Column]) -> StackedTensor:
    values, *rest = columns
    return StackedTensor.model_validate(
        {
            "column": values.name,
            "dtype": dtype_name(array),
            "shape": array.shape,
            "sha256": values.sha256,
            "storage": values.kind if rest else "plain",
            "scales": {"column": rest[0].name, "block": BLOCK, "sha256": rest[0].sha256} if rest else None,
        }
    )


def _aligned(columns: list[_Column], metadata: dict[bytes, bytes]) -> bytearray:
    """The file, its metadata padded until the tensors begin on a 64-byte boundary: Arrow itself promises only 8."""
    fields = [column.field for column in columns]
    arrays = [_arrow_array(column) for column in columns]
    spaces = 0
    for _ in range(3):
        schema = pa.schema(fields, metadata={**metadata, PADDING: b" " * spaces})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        data = bytearray(sink.getvalue())
        first = next(start for start, length in read_single_batch(memoryview(data)).buffers if length)
        if first % ALIGNMENT == 0:
            return data
        spaces += -first % ALIGNMENT
    raise AssertionError("Arrow did not place the tensors on a 64-byte boundary")


def _arrow_array(column: _Column) -> pa.Array:
    padding = bytes(-column.data.nbytes % ALIGNMENT)  # Arrow writes whole buffers: the next one starts aligned too
    buffer = pa.py_buffer(column.data.tobytes() + padding)
    values = pa.Array.from_buffers(ARROW_TYPES[column.kind], column.data.size, [None, buffer])
    rows = pa.FixedSizeListArray.from_arrays(values, column.data.size)
    return pa.ExtensionArray.from_storage(column.field.type, rows)
