"""Weight arrays without torch: float32, float16, and bfloat16 as bits.

numpy has no bfloat16. Its bits are held in the opaque two-byte dtype `BFLOAT16` (`V2`), on which arithmetic and
casts fail loudly, so that bits are never mistaken for numbers; `widen` turns any of the three into float32.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]

FLOAT32 = np.dtype("<f4")
FLOAT16 = np.dtype("<f2")
BFLOAT16 = np.dtype("V2")

DTYPES: dict[str, np.dtype[np.generic]] = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}


def dtype_name(array: Array) -> str:
    """`float32`, `float16` or `bfloat16`; raises KeyError on any other dtype."""
    return _NAMES[array.dtype]


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def is_weight_dtype(dtype: np.dtype[np.generic]) -> bool:
    """Is this one of the dtypes that LoRA weights are kept in?"""
    return dtype in _NAMES


def bits(array: Array) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
    """The same memory as unsigned integers, to compare or hash floats bit for bit (NaN included)."""
    return array.view(np.uint32) if array.dtype.itemsize == 4 else array.view(np.uint16)


def widen(array: Array) -> npt.NDArray[np.float32]:
    """As float32: a view where it is one already, else a copy. Exact for all three dtypes."""
    if array.dtype == BFLOAT16:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def narrow(array: npt.NDArray[np.float32], dtype: str) -> Array:
    """float32 rounded to nearest even into `dtype`; NaN stays NaN."""
    if dtype != "bfloat16":
        return array.astype(DTYPES[dtype], copy=False)
    raw = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (raw + 0x7FFF + ((raw >> 16) & 1)) >> 16
    return np.where(np.isnan(array), np.uint32(0x7FC0), rounded).astype(np.uint16).view(BFLOAT16)


def is_finite(array: Array) -> bool:
    """No NaN and no infinity."""
    if array.dtype == BFLOAT16:
        return not bool(np.any((array.view(np.uint16) & 0x7F80) == 0x7F80))
    return bool(np.isfinite(array.astype(array.dtype, copy=False)).all())


def is_zero(array: Array) -> bool:
    """All elements are +0 or -0."""
    mask = 0x7FFFFFFF if array.dtype.itemsize == 4 else 0x7FFF
    return not bool(np.any(bits(array) & mask))
