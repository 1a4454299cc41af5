"""Matrices in GGML's super-blocks of 256 numbers: Q4_K and Q6_K, which the package `gguf` reads and does not write.

Bytes and the searches for good scales follow ggml's reference (`ggml-quants.c`: `quantize_row_q4_K_ref`,
`quantize_row_q6_K_ref`, `make_qkx2_quants`, `make_qx_quants`), over all blocks of a matrix at once.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from lora_core.array import Array
from lora_core.errors import InvalidAdapter

SUPER = 256
"""Numbers of a super-block: rows must be multiples of it."""
SuperBlocks = Literal["Q4_K", "Q6_K"]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def quantise_rows(matrix: Array, kind: SuperBlocks) -> Bytes:
    """float32 [rows, width] → bytes [rows, width/256 · 144 (Q4_K) or 210 (Q6_K)].

    Raises InvalidAdapter for numbers whose scales float16 cannot hold; ValueError unless 256 divides the width.
    """
    rows, width = matrix.shape
    if width % SUPER:
        raise ValueError(f"rows of {width} numbers, expected a multiple of {SUPER}")
    blocks = np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1, SUPER)
    if not np.isfinite(blocks).all() or float(np.abs(blocks).max(initial=0)) > 1e6:  # scales of 1/15 to 1/4096 of it
        raise InvalidAdapter("weights", float(np.abs(blocks).max()), f"finite and at most 1e6 to be kept as {kind}")
    return (_q4_k(blocks) if kind == "Q4_K" else _q6_k(blocks)).reshape(rows, -1)


def _q6_k(blocks: Floats) -> Bytes:
    """[n, 256] → [n, 210]: 4 low bits, 2 high bits, 16 scales of int8, and their scale in float16."""
    parts = blocks.reshape(-1, 16, 16)
    scales = _symmetric_scales(parts, 32)  # [n, 16]
    widest = np.take_along_axis(scales, np.abs(scales).argmax(-1)[:, None], -1)  # the scale largest in amount, signed
    overall = (widest / -128).astype(np.float16)
    divisor = overall.astype(np.float32)
    whole = np.minimum(127, _rounded(_divided(scales, divisor))).astype(np.int8)
    steps = (divisor * whole)[..., None]
    values = (np.clip(_rounded(_divided(parts, steps)), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = (values[:, :, :2] & 15) | ((values[:, :, 2:] & 15) << 4)
    high = values >> 4
    tops = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    count = len(blocks)
    return np.concatenate(
        [low.reshape(count, 128), tops.reshape(count, 64), whole.view(np.uint8), overall.view(np.uint8)], axis=1
    )


def _q4_k(blocks: Floats) -> Bytes:
    """[n, 256] → [n, 144]: two float16, 8 scales and 8 minima of 6 bits each, and 4 bits a number."""
    parts = blocks.reshape(-1, 8, 32)
    scales, minima = _affine_scales(parts)
    # As ggml does: the whole numbers are found with exact scales, the values with the scales as they are stored.
    both = [_six_bits(scales), _six_bits(minima)]
    (scale_bits, scale), (minimum_bits, minimum) = both
    steps = (scale.astype(np.float32) * scale_bits)[..., None]
    least = (minimum.astype(np.float32) * minimum_bits)[..., None]
    values = np.clip(_rounded(_divided(parts + least, steps)), 0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = values[:, :, 0] | (values[:, :, 1] << 4)
    count = len(blocks)
    return np.concatenate(
        [
            scale.view(np.uint8),
            minimum.view(np.uint8),
            _packed_scales(scale_bits, minimum_bits),
            packed.reshape(count, 128),
        ],
        axis=1,
    )


def _six_bits(scales: Floats) -> tuple[Bytes, npt.NDArray[np.float16]]:
    """[n, 8] → whole numbers 0 to 63, and the float16 [n, 1] that they are multiplied with."""
    largest = scales.max(-1, keepdims=True)
    whole = np.minimum(63, _rounded(_divided(63 * scales, largest))).astype(np.uint8)
    return whole, (largest / 63).astype(np.float16)


def _packed_scales(scales: Bytes, minima: Bytes) -> Bytes:
    """Two times [n, 8] of 6 bits → [n, 12]: the upper two bits of the last four stand above the first four."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = minima[:, :4] | ((minima[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)


def _symmetric_scales(parts: Floats, most: int) -> Floats:
    """[n, m, k] → [n, m]: of 19 scales near (the number largest in amount) / -most the best fitting, weighted by x²."""
    extreme = np.take_along_axis(parts, np.abs(parts).argmax(-1)[..., None], -1)
    weights = parts * parts
    best, scales = np.full(parts.shape[:2], -1.0, np.float32), np.zeros(parts.shape[:2], np.float32)
    for offset in (0, *range(-9, 0), *range(1, 10)):
        whole = np.clip(_rounded(_divided(-(most + 0.1 * offset) * parts, extreme)), -most, most - 1)
        product, square = (weights * parts * whole).sum(-1), (weights * whole * whole).sum(-1)
        fit = _divided(product * product, square)
        better = fit > best
        best, scales = np.where(better, fit, best), np.where(better, _divided(product, square), scales)
    return scales


def _affine_scales(parts: Floats) -> tuple[Floats, Floats]:
    """[n, 8, 32] → scales and (sign turned) minima [n, 8], so that x ≈ scale · (0 to 15) − minimum."""
    weights = np.sqrt((parts * parts).mean(-1, keepdims=True)) + np.abs(parts)
    least = np.minimum(parts.min(-1, keepdims=True), 0)
    span = parts.max(-1, keepdims=True) - least
    scale, minimum = span / 15, least
    whole = np.clip(_rounded(_divided(parts - least, scale)), 0, 15)
    error = (weights * (scale * whole + minimum - parts) ** 2).sum(-1, keepdims=True)
    total, first = weights.sum(-1, keepdims=True), (weights * parts).sum(-1, keepdims=True)
    for step in range(21):
        whole = np.clip(_rounded(_divided((15 - 1 + 0.1 * step) * (parts - least), span)), 0, 15)
        ones = (weights * whole).sum(-1, keepdims=True)
        squares = (weights * whole * whole).sum(-1, keepdims=True)
        cross = (weights * whole * parts).sum(-1, keepdims=True)
        determinant = total * squares - ones * ones
        slope = _divided(total * cross - first * ones, determinant)
        bottom = _divided(squares * first - ones * cross, determinant)
        slope = np.where(bottom > 0, _divided(cross, squares), slope)
        bottom = np.minimum(bottom, 0)
        found = (weights * (slope * whole + bottom - parts) ** 2).sum(-1, keepdims=True)
        better = (determinant > 0) & (found < error)
        error = np.where(better, found, error)
        scale, minimum = np.where(better, slope, scale), np.where(better, bottom, minimum)
    return scale[..., 0].astype(np.float32), -minimum[..., 0].astype(np.float32)


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    """0 where the denominator is 0."""
    safe = np.where(denominator == 0, 1, denominator)
    return np.where(denominator == 0, 0, numerator / safe).astype(np.float32)


def _rounded(numbers: Floats) -> Floats:
    return np.rint(numbers)
