"""Block quantisation of weight matrices: int8 and 4-bit storage, and what it costs in accuracy.

Symmetric, round to nearest, one float16 scale for each block of the last dimension: the scheme of GGML's Q8_0 and
(but for the sign of its extreme) Q4_0. Stored only; matrices are float again once loaded.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lora_core.array import Array, narrow, widen
from lora_core.errors import InvalidAdapter

Storage = Literal["int8", "int4"]
BLOCK = 32
_LARGEST = {"int8": 127, "int4": 7}


@dataclass(frozen=True, eq=False)
class Quantised:
    """A quantised array of shape [..., width].

    values: int8 [..., width], or uint8 [..., ceil(width/2)] for int4, the even element in the low half, both offset
    by 8. scales: float16 [..., ceil(width/block)].
    """

    values: Array
    scales: Array


def quantise(array: Array, storage: Storage, block: int = BLOCK) -> Quantised:
    """Each block of the last dimension as integers times one scale. Not-finite numbers become 0: check them before."""
    floats = widen(array)
    width = floats.shape[-1]
    blocks = _blocks(np.nan_to_num(floats, nan=0.0, posinf=0.0, neginf=0.0), block)
    largest = _LARGEST[storage]
    # The scale is rounded to float16 first: the integers are then the best ones for the scale that is stored.
    with np.errstate(over="ignore"):
        scales = (np.abs(blocks).max(-1) / largest).astype(np.float16)
    if not np.isfinite(scales).all():
        raise InvalidAdapter(
            "weights", float(np.abs(blocks).max()), f"at most {65504 * largest} to be kept as {storage}"
        )
    divisor = np.where(scales == 0, 1, scales).astype(np.float32)[..., None]
    whole = np.clip(np.rint(blocks / divisor), -largest, largest).astype(np.int8)
    values = whole.reshape(*whole.shape[:-2], -1)[..., :width]
    return Quantised(values if storage == "int8" else _pack(values), scales)


def dequantise(quantised: Quantised, storage: Storage, width: int, dtype: str, block: int = BLOCK) -> Array:
    """The array that `quantise` was given, within half a scale, in `dtype`."""
    values = quantised.values if storage == "int8" else _unpack(quantised.values, width)
    blocks = _blocks(values.astype(np.float32), block)
    floats = blocks * quantised.scales.astype(np.float32)[..., None]
    return narrow(np.ascontiguousarray(floats.reshape(*floats.shape[:-2], -1)[..., :width]), dtype)


def stored_width(width: int, storage: Storage) -> int:
    """How many bytes a row of `width` numbers takes."""
    return width if storage == "int8" else -(-width // 2)


def _blocks(array: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """[..., width] → [..., blocks, block], the last block padded with zeros."""
    padding = -array.shape[-1] % block
    if padding:
        array = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, padding)])
    return array.reshape(*array.shape[:-1], -1, block)


def _pack(values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    odd = values.shape[-1] % 2
    unsigned = np.pad(values + 8, [(0, 0)] * (values.ndim - 1) + [(0, odd)]).astype(np.uint8)
    packed: npt.NDArray[np.uint8] = np.bitwise_or(unsigned[..., ::2], unsigned[..., 1::2] << 4)
    return packed


def _unpack(packed: Array, width: int) -> npt.NDArray[np.int8]:
    bytes_ = packed.view(np.uint8)
    both = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).reshape(*bytes_.shape[:-1], -1)
    return (both.astype(np.int8) - 8)[..., :width]
