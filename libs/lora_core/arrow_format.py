"""`LoRAFormat`: an adapter as one Arrow IPC file. Specified in docs/arrow-format.md.

One record batch of one row; each column is a canonical `arrow.fixed_shape_tensor` that stacks one projection's A (or
B) over the layers which share its shape: 14 columns in place of 420 matrices. Nothing is copied at load.
"""

import hashlib
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lora_core.array import DTYPES, Array, dtype_name
from lora_core.arrow_ipc import Batch, Malformed, read_single_batch
from lora_core.card import LoRACard, LoRAWeights
from lora_core.errors import AdapterNotFound, CorruptAdapter, InvalidAdapter
from lora_core.stored_card import DocumentInvalid, Stack, StackedTensor, StoredCard

FORMAT_VERSION = 1

_VERSION, _CARD, _DIGEST = b"lorafleet.version", b"lorafleet.card", b"lorafleet.digest"
_ENVELOPE, _PADDING = b"lorafleet.envelope", b"lorafleet.padding"
_ALIGNMENT = 64
_ARROW_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "bfloat16": pa.uint16()}
_LAYER = re.compile(r"\.\d+\.")


class LoRAFormat:
    """Saving and loading of adapter files."""

    @staticmethod
    def save(card: LoRACard, path: Path | str) -> str:
        """Write `card` to `path` (replaced atomically) and return its content digest (sha256, hex).

        The digest covers every tensor and all metadata. The same card gives the same digest on every machine.
        """
        path = Path(path)
        data, digest = _serialise(card)
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
        """Map the file and return its card; its arrays are read-only views of the map, its digest has been checked.

        The file must not be changed in place while the card lives (replace it instead, as `save` does).
        Raises AdapterNotFound if it is missing, CorruptAdapter if it is truncated, altered, foreign or hostile.
        """
        path = Path(path)
        if not path.is_file():
            raise AdapterNotFound(f"no adapter file at {path}")
        if path.stat().st_size == 0:
            raise CorruptAdapter(path, "empty")
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        try:
            return _read(memoryview(mapped))
        except (Malformed, DocumentInvalid, InvalidAdapter) as error:
            raise CorruptAdapter(path, str(error)) from None


def _serialise(card: LoRACard) -> tuple[bytearray, str]:
    stacks: list[Stack] = []
    columns: list[tuple[StackedTensor, Array]] = []
    for stack, a, b in _stacked(card):
        stacks.append(stack)
        columns += [(stack.a, a), (stack.b, b)]
    stored = StoredCard(
        name=card.name,
        rank=card.rank,
        alpha=float(card.alpha),
        rslora=card.rslora,
        target_modules=tuple(card.target_modules),
        metadata=dict(card.metadata),
        stacks=tuple(stacks),
    )
    document = stored.to_json()
    digest = hashlib.sha256(document).hexdigest()
    placeholder = hashlib.sha256(b"unsealed " + digest.encode()).hexdigest()
    metadata = {
        _VERSION: str(FORMAT_VERSION).encode(),
        _CARD: document,
        _DIGEST: digest.encode(),
        _ENVELOPE: placeholder.encode(),
    }
    data = _aligned(columns, metadata)
    ranges = _ranges(read_single_batch(memoryview(data)), stored)
    checksum = _envelope_checksum(memoryview(data), ranges, placeholder)
    return data.replace(placeholder.encode(), checksum.encode()), digest


def _stacked(card: LoRACard) -> Iterator[tuple[Stack, Array, Array]]:
    """The card's matrices, stacked over the modules that differ only in their layer number."""
    groups: dict[tuple[str, tuple[int, ...], tuple[int, ...], str, str], list[str]] = {}
    for module, w in card.weights.items():
        projection = _LAYER.sub(".*.", module)
        key = (projection, w.a.shape, w.b.shape, dtype_name(w.a), dtype_name(w.b))
        groups.setdefault(key, []).append(module)
    for number, ((projection, *_), modules) in enumerate(groups.items()):
        weights = [card.weights[module] for module in modules]
        a = np.stack([w.a for w in weights])
        b = np.stack([w.b for w in weights])
        alphas = tuple(None if w.alpha is None else float(w.alpha) for w in weights)
        stack = Stack(
            modules=tuple(modules),
            alphas=None if set(alphas) == {None} else alphas,
            a=_describe(f"{number}.{projection}.lora_A", a),
            b=_describe(f"{number}.{projection}.lora_B", b),
        )
        yield stack, a, b


def _describe(column: str, array: Array) -> StackedTensor:
    depth, rows, width = array.shape
    sha256 = hashlib.sha256(array.view(np.uint8).data).hexdigest()
    return StackedTensor.model_validate(
        {"column": column, "dtype": dtype_name(array), "shape": (depth, rows, width), "sha256": sha256}
    )


def _aligned(columns: list[tuple[StackedTensor, Array]], metadata: dict[bytes, bytes]) -> bytearray:
    """The file, its metadata padded until the tensors begin on a 64-byte boundary: Arrow itself promises only 8."""
    arrays = [_column(tensor, array) for tensor, array in columns]
    fields = [_field(tensor) for tensor, _ in columns]
    for spaces in range(0, 2 * _ALIGNMENT, 4):
        schema = pa.schema(fields, metadata={**metadata, _PADDING: b" " * spaces})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        data = bytearray(sink.getvalue())
        if all(start % _ALIGNMENT == 0 for start, length in read_single_batch(memoryview(data)).buffers if length):
            return data
    raise AssertionError("Arrow did not place the tensors on a 64-byte boundary")


def _column(tensor: StackedTensor, array: Array) -> pa.Array:
    padding = bytes(-array.nbytes % _ALIGNMENT)  # Arrow writes whole buffers: the next one starts aligned too
    buffer = pa.py_buffer(array.tobytes() + padding)
    values = pa.Array.from_buffers(_ARROW_TYPES[tensor.dtype], array.size, [None, buffer])
    rows = pa.FixedSizeListArray.from_arrays(values, array.size)
    return pa.ExtensionArray.from_storage(_field(tensor).type, rows)


def _field(tensor: StackedTensor) -> pa.Field:
    tensor_type = pa.fixed_shape_tensor(_ARROW_TYPES[tensor.dtype], tensor.shape)
    return pa.field(tensor.column, tensor_type, nullable=False, metadata={"dtype": tensor.dtype})


def _read(data: memoryview) -> LoRACard:
    batch = read_single_batch(data)
    metadata = batch.metadata
    if _VERSION not in metadata or _CARD not in metadata:
        raise Malformed("an Arrow file, but not a LoRA adapter (its schema has no lorafleet.card)")
    if metadata[_VERSION] != str(FORMAT_VERSION).encode():
        version = metadata[_VERSION].decode(errors="replace")
        raise Malformed(f"format version {version[:20]!r}, this library reads {FORMAT_VERSION}: upgrade lora_core")
    document = metadata[_CARD]
    digest = hashlib.sha256(document).hexdigest()
    if metadata.get(_DIGEST) != digest.encode():
        raise Malformed("the card's metadata does not have the recorded digest: altered")
    stored = StoredCard.from_json(document)
    ranges = _ranges(batch, stored)
    recorded = metadata.get(_ENVELOPE, b"").decode(errors="replace")
    if len(recorded) != 64 or _envelope_checksum(data, ranges, recorded) != recorded:
        raise Malformed("the file around the tensors does not have the recorded checksum: altered")
    whole = np.frombuffer(data, dtype=np.uint8)
    whole.setflags(write=False)
    weights: dict[str, LoRAWeights] = {}
    for stack, pair in zip(stored.stacks, zip(ranges[::2], ranges[1::2], strict=True), strict=True):
        a, b = (_tensor(whole, tensor, span) for tensor, span in zip((stack.a, stack.b), pair, strict=True))
        for index, module in enumerate(stack.modules):
            weights[module] = LoRAWeights(a[index], b[index], stack.alphas[index] if stack.alphas else None)
    return LoRACard(
        name=stored.name,
        rank=stored.rank,
        alpha=stored.alpha,
        target_modules=stored.target_modules,
        weights=weights,
        metadata=stored.metadata,
        rslora=stored.rslora,
        digest=digest,
    )


def _tensor(whole: Array, tensor: StackedTensor, span: tuple[int, int]) -> Array:
    raw = whole[span[0] : span[1]]
    if hashlib.sha256(raw.data).hexdigest() != tensor.sha256:
        raise Malformed(f"tensor {tensor.column!r} does not have the recorded digest: altered")
    return raw.view(DTYPES[tensor.dtype]).reshape(tensor.shape)


def _ranges(batch: Batch, stored: StoredCard) -> list[tuple[int, int]]:
    """Byte range of each column's values, after checking that schema, batch and card describe the same tensors."""
    tensors = [tensor for stack in stored.stacks for tensor in (stack.a, stack.b)]
    if batch.rows != 1 or len(batch.columns) != len(tensors) or len(batch.buffers) != 3 * len(tensors):
        raise Malformed(f"{batch.rows} rows of {len(batch.columns)} columns, expected 1 row of {len(tensors)}")
    ranges: list[tuple[int, int]] = []
    for number, tensor in enumerate(tensors):
        name, column_type = batch.columns[number]
        if name != tensor.column or column_type != _field(tensor).type:
            raise Malformed(f"column {number} is {name!r} {column_type}, the card says {tensor.column!r}")
        (_, validity), (_, child_validity), (start, length) = batch.buffers[3 * number : 3 * number + 3]
        needed = tensor.elements * DTYPES[tensor.dtype].itemsize
        if validity or child_validity or length < needed or start % _ALIGNMENT:
            raise Malformed(
                f"tensor {tensor.column!r} has {length} bytes at {start}, expected {needed}, 64-byte aligned"
            )
        ranges.append((start, start + needed))
    return ranges


def _envelope_checksum(data: memoryview, ranges: list[tuple[int, int]], recorded: str) -> str:
    """sha256 of every byte that is in no tensor, with the recorded checksum itself (schema and footer) zeroed."""
    envelope = bytearray()
    position = 0
    for start, end in ranges:
        envelope += data[position:start]
        position = end
    envelope += data[position:]
    if envelope.count(recorded.encode()) != 2:
        return ""
    return hashlib.sha256(envelope.replace(recorded.encode(), b"0" * 64)).hexdigest()
