"""Similarities to within a known error, from one byte a number: they tell which vectors need an exact product.

Of a vector v the numbers along some axes, P v (see `axes.py`), are kept as s · c: s is the largest of them divided by
127, c the numbers divided by s and rounded. For a query q, |q · v - s (P q · c)| <= |P q| |P v - s c| + |r(q)| |r(v)|.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from services.router.axes import STEP, SUMMING, Axes, Doubles
from services.router.evidence import Vectors

LARGEST = 127
DIGIT = 63
"""Largest digit of a query, which has two, base `BASE`. Processors without VNNI add two products of a byte without sign
and one with sign in 16 bits: 2 · 255 · 63 is what these hold."""
BASE = 2 * DIGIT
TOGETHER = 8
"""Codes that one row of the product has: their sums, of two digits each, are the 16 that processors add at once."""
JOINED = 4
"""From so many requests on one product for all of them, a code in a row, takes less than one for each."""


@dataclass(frozen=True, slots=True)
class Codes:
    """`numbers`: int8 [n, width]. `scales`: float32 [n]. `lost`: float32 [n], at least |P v - s c|. `rest`: float32
    [n], at least |r(v)|."""

    numbers: NDArray[np.int8]
    scales: Vectors
    lost: Vectors
    rest: Vectors


def width(count: int) -> int:
    """Numbers of a code: filled up with zeros, since products are fastest with whole multiples of `STEP`."""
    return -(-count // STEP) * STEP


def encode(vectors: Vectors, axes: Axes) -> Codes:
    """Codes of vectors, float32 [n, dimension], of length 1 at most."""
    along, rest = axes.split(vectors)
    scales = np.maximum(np.abs(along).max(axis=1), np.float32(1e-30)) / np.float32(LARGEST)
    numbers = np.clip(np.rint(along / scales[:, None]), -LARGEST, LARGEST)
    lost = np.linalg.norm(along - numbers * scales[:, None].astype(np.float64), axis=1)
    lost = (lost + axes.rounding + 4 * SUMMING) * (1 + 4 * SUMMING)
    codes = np.zeros((len(vectors), width(axes.count)), dtype=np.int8)
    codes[:, : axes.count] = numbers
    return Codes(codes, scales, lost.astype(np.float32), rest)


class Queries:
    """Queries, float64 [q, dimension], along the axes of some codes."""

    def __init__(self, queries: Doubles, axes: Axes) -> None:
        along, self.rest = axes.split_exactly(queries)
        self.length = float(np.linalg.norm(along, axis=1).max(initial=0.0))
        self._scale = max(float(np.abs(along).max(initial=0.0)), 1e-30) / DIGIT
        high = np.rint(along / self._scale)
        low = np.rint((along / self._scale - high) * BASE)
        rounded = self._scale * (high + low / BASE)
        self._lost = float(np.linalg.norm(along - rounded, axis=1).max(initial=0.0))
        across = width(axes.count)
        # Of each of the codes that lie together the products with all digits: [TOGETHER, 2 q, TOGETHER, width].
        digits = np.zeros((TOGETHER, 2 * len(along), TOGETHER, across), dtype=np.int8)
        for at in range(TOGETHER):
            digits[at, 0::2, at, : axes.count], digits[at, 1::2, at, : axes.count] = high, low
        self._digits = torch.from_numpy(digits.reshape(-1, TOGETHER * across))
        self._alone = torch.from_numpy(digits[0, :, 0])
        self._skew = axes.skew

    def about(self, numbers: NDArray[np.int8], scales: Vectors) -> Vectors:
        """Of each vector its largest similarity with a query, [n], to within `error`; n is a multiple of `TOGETHER`.

        `_int_mm` reads the codes as they lie, and adds exactly.
        """
        with torch.inference_mode():
            together = torch.from_numpy(numbers).view(-1, self._digits.shape[1])
            products = torch._int_mm(together, self._digits.T).view(len(numbers), len(self._digits) // TOGETHER)
            whole = products[:, 0::2].float().add_(products[:, 1::2], alpha=1 / BASE)
            found: Vectors = (whole[:, 0] if whole.shape[1] == 1 else whole.amax(dim=1)).numpy()
        found *= scales * np.float32(self._scale)
        return found

    def of_joined(self, products: torch.Tensor, scales: Vectors) -> Vectors:
        """The same of products with `alone`, [2 q, n]."""
        whole = products[0::2].float().add_(products[1::2], alpha=1 / BASE)
        found: Vectors = (whole[0] if len(whole) == 1 else whole.amax(dim=0)).numpy()
        found *= scales * np.float32(self._scale)
        return found

    @property
    def alone(self) -> torch.Tensor:
        """int8 [2 q, width]: the digits of each query, the high ones first."""
        return self._alone

    def error(self, lost: Vectors, rest: Vectors) -> Vectors:
        """By how much at most a similarity is off: of the vectors that these are of, or of any that lost no more."""
        return np.asarray(lost * np.float32(self.length) + rest * np.float32(self.rest) + np.float32(self._rounding))

    @property
    def _rounding(self) -> float:
        """What does not depend on the vector: of the query's digits, of skew axes, of float32 here and in `Codes`."""
        # Lengths of vectors are 1, of their codes less than 2.
        every = 2 * self._lost + (self._skew + 64 * SUMMING) * (self.length + self.rest + 1)
        return every * (1 + 4 * SUMMING)


def about_each(queries: Sequence[Queries], numbers: NDArray[np.int8], scales: Vectors) -> list[Vectors]:
    """`Queries.about` of several requests: of many the codes are read once."""
    if len(queries) < JOINED:
        return [one.about(numbers, scales) for one in queries]
    with torch.inference_mode():
        digits = torch.cat([one.alone for one in queries])
        digits = torch.nn.functional.pad(digits, (0, 0, 0, -len(digits) % (2 * TOGETHER)))
        products = torch._int_mm(torch.from_numpy(numbers), digits.T).T.contiguous()
        found, begin = [], 0
        for one in queries:
            found.append(one.of_joined(products[begin : begin + len(one.alone)], scales))
            begin += len(one.alone)
        return found
