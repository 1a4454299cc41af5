"""The bytes of an adapter file as a card, checked before they are believed."""

import hashlib
import math
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lora_core.array import DTYPES, FLOAT16, Array
from lora_core.card import LoRACard
from lora_core.format.arrow_ipc import Batch, Malformed, read_single_batch
from lora_core.format.arrow_layout import (
    ARROW_TYPES,
    CARD,
    CHECKSUM,
    DIGEST,
    FORMAT_VERSION,
    LEAST_ALIGNMENT,
    UNSEALED,
    VERSION,
    checksum_of,
    tensors_span,
)
from lora_core.format.stored_card import StackedTensor, StoredCard, StoredStack
from lora_core.quantisation import Quantised, dequantise, stored_width
from lora_core.stack import Stack, StackedWeights

Identity = tuple[int, int, int, int, int]
T = TypeVar("T")
_MADV_POPULATE_READ = 22  # Linux 5.14; Python names it from 3.13 on


@dataclass(frozen=True)
class _Column:
    """Where one column's values lie, and what they are."""

    start: int
    end: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Layout:
    """A file's framing after its checks. tensors: first byte and end of all buffers."""

    digest: str
    stored: StoredCard
    columns: Mapping[str, _Column]
    tensors: tuple[int, int]
    checksum: bytes
    schema_in_front: bool


# Files whose tensors had the digest that they claim, by identity: the digest of very many, the layout of the last.
_verified: OrderedDict[Identity, str] = OrderedDict()
_layouts: OrderedDict[Identity, _Layout] = OrderedDict()
_DIGESTS_KEPT, _LAYOUTS_KEPT = 16_384, 256  # a layout takes some 100 kB


def prefault(mapped: mmap.mmap) -> None:
    """Map all pages in one call where the system can: else each 64 kB costs a fault."""
    with suppress(AttributeError, OSError, ValueError):  # on another system pages are mapped as they are read
        mapped.madvise(_MADV_POPULATE_READ)


def read_card(data: memoryview, identity: Identity) -> LoRACard:
    """The card in a mapped file. Raises Malformed, DocumentInvalid or InvalidAdapter."""
    layout = _layouts.get(identity) or _layout(data)
    # Where the layout was known, equal bytes show that it still holds.
    found = checksum_of(data, layout.checksum, layout.tensors, in_front=layout.schema_in_front)
    if found != layout.checksum:
        raise Malformed("the file does not have the recorded checksum: altered")
    whole: npt.NDArray[np.uint8] = np.frombuffer(data, dtype=np.uint8)
    whole.setflags(write=False)
    values = {name: whole[c.start : c.end].view(c.dtype).reshape(c.shape) for name, c in layout.columns.items()}
    if _verified.get(identity) != layout.digest:
        _verify(layout.stored, values)
    _remember(_verified, identity, layout.digest, _DIGESTS_KEPT)
    _remember(_layouts, identity, layout, _LAYOUTS_KEPT)
    stored = layout.stored
    card = LoRACard(
        name=stored.name,
        rank=stored.rank,
        alpha=stored.alpha,
        target_modules=stored.target_modules,
        weights=StackedWeights(tuple(_stack(stack, values) for stack in stored.stacks)),
        metadata=dict(stored.metadata),
        rslora=stored.rslora,
    )
    object.__setattr__(card, "digest", layout.digest)  # of this very content: a changed copy of the card has none
    return card


def read_max_rank(data: memoryview, identity: Identity) -> int:
    """The largest rank of any module by the file's framing; no tensor is read or compared. Raises as `read_card`."""
    layout = _layouts.get(identity) or _layout(data)
    _remember(_layouts, identity, layout, _LAYOUTS_KEPT)
    return max(stack.a.shape[1] for stack in layout.stored.stacks)


def _remember(kept: OrderedDict[Identity, T], identity: Identity, value: T, most: int) -> None:
    kept[identity] = value
    kept.move_to_end(identity)
    while len(kept) > most:
        kept.popitem(last=False)


def _layout(data: memoryview) -> _Layout:
    batch = read_single_batch(data)
    metadata = batch.metadata
    if VERSION not in metadata or CARD not in metadata:
        raise Malformed("an Arrow file, but not a LoRA adapter (its schema has no lorafleet.card)")
    if metadata[VERSION] != str(FORMAT_VERSION).encode():
        version = metadata[VERSION].decode(errors="replace")
        raise Malformed(f"format version {version[:20]!r}, this library reads {FORMAT_VERSION}: convert it again")
    document = metadata[CARD]
    digest = hashlib.sha256(document).hexdigest()
    if metadata.get(DIGEST) != digest.encode():
        raise Malformed("the card's metadata does not have the recorded digest: altered")
    stored = StoredCard.from_json(document)
    recorded = metadata.get(CHECKSUM, b"")
    if len(recorded) != len(UNSEALED):
        raise Malformed("no checksum is recorded")
    return _Layout(digest, stored, _columns(batch, stored), tensors_span(batch), recorded, batch.schema_in_front)


def _stack(stack: StoredStack, values: Mapping[str, Array]) -> Stack:
    arrays = {name: _tensor(tensor, values) for name, tensor in stack.tensors.items()}
    return Stack(stack.modules, stack.alphas or (None,) * len(stack.modules), **arrays)


def _tensor(tensor: StackedTensor, values: Mapping[str, Array]) -> Array:
    own = values[tensor.column]
    if tensor.scales is None or tensor.storage == "plain":
        return own
    packed = Quantised(own, values[tensor.scales.column])
    array = dequantise(packed, tensor.storage, tensor.shape[-1], tensor.dtype, tensor.scales.block)
    array.setflags(write=False)
    return array


def _expected(stored: StoredCard) -> Iterator[tuple[str, str, tuple[int, ...], np.dtype[np.generic]]]:
    """(name, kind, stored shape, numpy dtype) of each column that the card describes, in their order."""
    for tensor in stored.tensors:
        if tensor.scales is None or tensor.storage == "plain":
            yield tensor.column, tensor.dtype, tensor.shape, DTYPES[tensor.dtype]
            continue
        *outer, width = tensor.shape
        kind = np.dtype(np.int8) if tensor.storage == "int8" else np.dtype(np.uint8)
        yield tensor.column, tensor.storage, (*outer, stored_width(width, tensor.storage)), kind
        yield tensor.scales.column, "float16", (*outer, -(-width // tensor.scales.block)), FLOAT16


def _columns(batch: Batch, stored: StoredCard) -> dict[str, _Column]:
    """Column name → its values' place, after checking that schema, batch and card describe the same tensors."""
    expected = list(_expected(stored))
    if batch.rows != 1 or len(batch.columns) != len(expected) or len(batch.buffers) != 3 * len(expected):
        raise Malformed(f"{batch.rows} rows of {len(batch.columns)} columns, expected 1 row of {len(expected)}")
    columns: dict[str, _Column] = {}
    for number, (name, kind, shape, dtype) in enumerate(expected):
        own_name, own_type = batch.columns[number]
        if own_name != name or not _is_tensor(own_type, kind, shape) or name in columns:
            raise Malformed(f"column {number} is {own_name!r} {own_type}, the card has {name!r} {kind} {list(shape)}")
        (_, validity), (_, child_validity), (start, length) = batch.buffers[3 * number : 3 * number + 3]
        needed = math.prod(shape) * dtype.itemsize
        if validity or child_validity or length < needed or start % LEAST_ALIGNMENT:
            raise Malformed(
                f"tensor {name!r} has {length} bytes at {start}, expected {needed} at a multiple of {LEAST_ALIGNMENT}"
            )
        columns[name] = _Column(start, start + needed, dtype, shape)
    return columns


def _is_tensor(own: pa.DataType, kind: str, shape: tuple[int, ...]) -> bool:
    """Compared by parts: making a type to compare with costs more than reading the rest of the file."""
    return (
        isinstance(own, pa.FixedShapeTensorType)
        and tuple(own.shape) == shape
        and own.value_type == ARROW_TYPES[kind]
        and own.permutation is None
    )


def _verify(stored: StoredCard, values: Mapping[str, Array]) -> None:
    """sha256 of every column, on all cores. Raises Malformed at the first that differs from the card."""
    claims = [(tensor.column, tensor.sha256) for tensor in stored.tensors]
    claims += [(tensor.scales.column, tensor.scales.sha256) for tensor in stored.tensors if tensor.scales]

    def holds(claim: tuple[str, str]) -> bool:
        return hashlib.sha256(values[claim[0]].view(np.uint8).data).hexdigest() == claim[1]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for (column, _), ok in zip(claims, pool.map(holds, claims), strict=True):
            if not ok:
                raise Malformed(f"tensor {column!r} does not have the recorded digest: altered")
