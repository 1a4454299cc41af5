"""`LoRAFormat`: an adapter as one Arrow IPC file. Specified in docs/arrow-format.md.

One record batch of one row; each column is a canonical `arrow.fixed_shape_tensor` that stacks one projection's A (or
B) over the layers which share its shape: 14 columns in place of 420 matrices. Nothing is copied at load.
"""

import hashlib
import math
import mmap
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from lora_core.array import DTYPES, FLOAT16, Array, dtype_name
from lora_core.arrow_ipc import Batch, Malformed, read_single_batch
from lora_core.card import LoRACard
from lora_core.errors import AdapterNotFound, CorruptAdapter, InvalidAdapter
from lora_core.quantisation import BLOCK, Quantised, dequantise, quantise, stored_width
from lora_core.stack import Stack, StackedWeights, projection, stacked
from lora_core.stored_card import DocumentInvalid, StackedTensor, StoredCard, StoredStack

FORMAT_VERSION = 2
Storage = Literal["plain", "int8", "int4"]

_VERSION, _CARD, _DIGEST = b"lorafleet.version", b"lorafleet.card", b"lorafleet.digest"
_CHECKSUM, _PADDING = b"lorafleet.checksum", b"lorafleet.padding"
_ALIGNMENT = 64
_ARROW_TYPES = {
    "float32": pa.float32(), "float16": pa.float16(), "bfloat16": pa.uint16(), "int8": pa.int8(), "int4": pa.uint8(),
}  # fmt: skip
_LABELS = {"a": "lora_A", "b": "lora_B"}  # as PEFT calls them
_UNSEALED = b"0" * 32


class LoRAFormat:
    """Saving and loading of adapter files."""

    @staticmethod
    def save(card: LoRACard, path: Path | str, storage: Storage = "plain") -> str:
        """Write `card` to `path` (replaced atomically) and return its content digest (sha256, hex).

        The digest covers every tensor and all metadata. The same card gives the same digest on every machine.
        storage: `int8` or `int4` keep the matrices block-quantised (see `lora_core.quantisation`), with loss.
        """
        path = Path(path)
        data, digest = _serialise(card, storage)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return digest

    @staticmethod
    def load(path: Path | str) -> LoRACard:
        """Map the file and return its card; its arrays are read-only views of the map (quantised ones are copies).

        Every load compares the checksum of all bytes. The digest itself, sha256 of every tensor, is computed when this
        process meets a file (inode, size and change times) for the first time.
        The file must not be changed in place while the card lives (replace it instead, as `save` does).
        Raises AdapterNotFound if it is missing, CorruptAdapter if it is truncated, altered, foreign or hostile.
        """
        path = Path(path)
        if not path.is_file():
            raise AdapterNotFound(f"no adapter file at {path}")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise CorruptAdapter(path, "empty")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        _prefault(mapped)
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        try:
            return _read(memoryview(mapped), identity)
        except (Malformed, DocumentInvalid, InvalidAdapter) as error:
            raise CorruptAdapter(path, str(error)) from None


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
    tensor_type = pa.fixed_shape_tensor(_ARROW_TYPES[kind], shape)
    return pa.field(name, tensor_type, nullable=False, metadata={"dtype": kind})


def _serialise(card: LoRACard, storage: Storage) -> tuple[bytearray, str]:
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
    placeholder = hashlib.sha256(b"unsealed " + digest.encode()).hexdigest()[: len(_UNSEALED)].encode()
    metadata = {
        _VERSION: str(FORMAT_VERSION).encode(),
        _CARD: document,
        _DIGEST: digest.encode(),
        _CHECKSUM: placeholder,
    }
    data = _aligned(columns, metadata)
    checksum = _checksum(memoryview(data), placeholder, _tensors_span(read_single_batch(memoryview(data))))
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
        schema = pa.schema(fields, metadata={**metadata, _PADDING: b" " * spaces})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        data = bytearray(sink.getvalue())
        first = next(start for start, length in read_single_batch(memoryview(data)).buffers if length)
        if first % _ALIGNMENT == 0:
            return data
        spaces += -first % _ALIGNMENT
    raise AssertionError("Arrow did not place the tensors on a 64-byte boundary")


def _arrow_array(column: _Column) -> pa.Array:
    padding = bytes(-column.data.nbytes % _ALIGNMENT)  # Arrow writes whole buffers: the next one starts aligned too
    buffer = pa.py_buffer(column.data.tobytes() + padding)
    values = pa.Array.from_buffers(_ARROW_TYPES[column.kind], column.data.size, [None, buffer])
    rows = pa.FixedSizeListArray.from_arrays(values, column.data.size)
    return pa.ExtensionArray.from_storage(column.field.type, rows)


_Identity = tuple[int, int, int, int, int]
_verified: OrderedDict[_Identity, str] = OrderedDict()  # files whose tensors had the digest that they claim
_REMEMBERED = 16_384
_MADV_POPULATE_READ = 22  # Linux 5.14; Python names it from 3.13 on


def _prefault(mapped: mmap.mmap) -> None:
    """Map all pages in one call where the system can: else each 64 kB costs a fault."""
    with suppress(AttributeError, OSError, ValueError):  # on another system pages are mapped as they are read
        mapped.madvise(_MADV_POPULATE_READ)


def _read(data: memoryview, identity: _Identity) -> LoRACard:
    batch = read_single_batch(data)
    metadata = batch.metadata
    if _VERSION not in metadata or _CARD not in metadata:
        raise Malformed("an Arrow file, but not a LoRA adapter (its schema has no lorafleet.card)")
    if metadata[_VERSION] != str(FORMAT_VERSION).encode():
        version = metadata[_VERSION].decode(errors="replace")
        raise Malformed(f"format version {version[:20]!r}, this library reads {FORMAT_VERSION}: convert it again")
    document = metadata[_CARD]
    digest = hashlib.sha256(document).hexdigest()
    if metadata.get(_DIGEST) != digest.encode():
        raise Malformed("the card's metadata does not have the recorded digest: altered")
    stored = StoredCard.from_json(document)
    values = _values(data, batch, stored)
    recorded = metadata.get(_CHECKSUM, b"")
    if len(recorded) != len(_UNSEALED) or _checksum(data, recorded, _tensors_span(batch)) != recorded:
        raise Malformed("the file does not have the recorded checksum: altered")
    if _verified.get(identity) != digest:
        _verify(stored, values)
        _verified[identity] = digest
        while len(_verified) > _REMEMBERED:
            _verified.popitem(last=False)
    return LoRACard(
        name=stored.name,
        rank=stored.rank,
        alpha=stored.alpha,
        target_modules=stored.target_modules,
        weights=StackedWeights(tuple(_stack(stack, values) for stack in stored.stacks)),
        metadata=stored.metadata,
        rslora=stored.rslora,
        digest=digest,
    )


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


def _values(data: memoryview, batch: Batch, stored: StoredCard) -> dict[str, Array]:
    """Column name → its values as a view, after checking that schema, batch and card describe the same tensors."""
    expected = list(_expected(stored))
    if batch.rows != 1 or len(batch.columns) != len(expected) or len(batch.buffers) != 3 * len(expected):
        raise Malformed(f"{batch.rows} rows of {len(batch.columns)} columns, expected 1 row of {len(expected)}")
    whole: npt.NDArray[np.uint8] = np.frombuffer(data, dtype=np.uint8)
    whole.setflags(write=False)
    values: dict[str, Array] = {}
    for number, (name, kind, shape, dtype) in enumerate(expected):
        own_name, own_type = batch.columns[number]
        if own_name != name or not _is_tensor(own_type, kind, shape) or name in values:
            raise Malformed(f"column {number} is {own_name!r} {own_type}, the card says {name!r} {kind} {list(shape)}")
        (_, validity), (_, child_validity), (start, length) = batch.buffers[3 * number : 3 * number + 3]
        needed = math.prod(shape) * dtype.itemsize
        if validity or child_validity or length < needed or start % _ALIGNMENT:
            raise Malformed(f"tensor {name!r} has {length} bytes at {start}, expected {needed}, 64-byte aligned")
        values[name] = whole[start : start + needed].view(dtype).reshape(shape)
    return values


def _is_tensor(own: pa.DataType, kind: str, shape: tuple[int, ...]) -> bool:
    """Compared by parts: making a type to compare with costs more than reading the rest of the file."""
    return (
        isinstance(own, pa.FixedShapeTensorType)
        and tuple(own.shape) == shape
        and own.value_type == _ARROW_TYPES[kind]
        and own.permutation is None
    )


def _verify(stored: StoredCard, values: Mapping[str, Array]) -> None:
    """sha256 of every column, on all cores. Raises Malformed at the first that is not what the card says."""
    claims = [(tensor.column, tensor.sha256) for tensor in stored.tensors]
    claims += [(tensor.scales.column, tensor.scales.sha256) for tensor in stored.tensors if tensor.scales]

    def holds(claim: tuple[str, str]) -> bool:
        return hashlib.sha256(values[claim[0]].view(np.uint8).data).hexdigest() == claim[1]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for (column, _), ok in zip(claims, pool.map(holds, claims), strict=True):
            if not ok:
                raise Malformed(f"tensor {column!r} does not have the recorded digest: altered")


def _tensors_span(batch: Batch) -> tuple[int, int]:
    """First byte and end of all the buffers."""
    filled = [(start, start + length) for start, length in batch.buffers if length]
    if not filled:
        raise Malformed("no tensors")
    return filled[0][0], filled[-1][1]


def _checksum(data: memoryview, recorded: bytes, tensors: tuple[int, int]) -> bytes:
    """XXH3-128 of all bytes, with the recorded checksum itself (once in the schema, once in the footer) zeroed."""
    head, tail = bytes(data[: tensors[0]]), bytes(data[tensors[1] :])
    if head.count(recorded) != 1 or tail.count(recorded) != 1:
        return b""
    digest = xxhash.xxh3_128(head.replace(recorded, _UNSEALED))
    digest.update(data[tensors[0] : tensors[1]])
    digest.update(tail.replace(recorded, _UNSEALED))
    return digest.hexdigest().encode()
