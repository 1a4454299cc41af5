"""What writer and reader of an adapter file share: its keys, Arrow types and checksum. See docs/arrow-format.md."""

import pyarrow as pa
import xxhash

from lora_core.format.arrow_ipc import Batch, Malformed

FORMAT_VERSION = 2

VERSION, CARD, DIGEST = b"lorafleet.version", b"lorafleet.card", b"lorafleet.digest"
CHECKSUM, PADDING = b"lorafleet.checksum", b"lorafleet.padding"
ALIGNMENT = 64
"""Of tensors in files of this writer."""
LEAST_ALIGNMENT = 8
"""Of tensors in files of any: what Arrow itself promises."""
ARROW_TYPES = {
    "float32": pa.float32(), "float16": pa.float16(), "bfloat16": pa.uint16(), "int8": pa.int8(), "int4": pa.uint8(),
}  # fmt: skip
UNSEALED = b"0" * 32


def tensors_span(batch: Batch) -> tuple[int, int]:
    """First byte and end of all the buffers."""
    filled = [(start, start + length) for start, length in batch.buffers if length]
    if not filled:
        raise Malformed("no tensors")
    return filled[0][0], filled[-1][1]


def checksum_of(data: memoryview, recorded: bytes, tensors: tuple[int, int], *, in_front: bool = True) -> bytes:
    """XXH3-128 of all bytes, with the recorded checksum itself zeroed: in the footer, and in a schema in front."""
    head, tail = bytes(data[: tensors[0]]), bytes(data[tensors[1] :])
    if head.count(recorded) != in_front or tail.count(recorded) != 1:
        return b""
    digest = xxhash.xxh3_128(head.replace(recorded, UNSEALED))
    digest.update(data[tensors[0] : tensors[1]])
    digest.update(tail.replace(recorded, UNSEALED))
    return digest.hexdigest().encode()
