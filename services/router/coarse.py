"""Similarities to within a known error, from one byte a number: they tell which vectors need an exact product.

A vector v is kept as s · c: s is the largest of its numbers divided by 127, c the numbers divided by s and rounded. By
the inequality of Cauchy and Schwarz a query q has |q · v - s (q · c)| <= |q| |v - s c|, and the last length is known.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from services.router.evidence import Vectors

LARGEST = 127
SUMMING = 2.0**-23
"""Of a float32 sum, for each of its terms; twice what IEEE 754 allows (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, section 3.1), so that lengths that are rounded too are covered."""
BFLOAT16 = 2.0**-8
"""Of one number; twice what rounding to the nearest allows."""
WIDTH = 64
"""Numbers of a vector are filled up with zeros to a multiple: torch's product reads several at once, and beyond the
end where there are fewer."""


@dataclass(frozen=True, slots=True)
class Codes:
    """`numbers`: int8 [n, width]. `scales`: float32 [n], exact in bfloat16. `errors`: float32 [n], by how much at most
    the similarity with a query of length 1 is off, its own last rounding aside."""

    numbers: NDArray[np.int8]
    scales: Vectors
    errors: Vectors

    def part(self, rows: slice) -> "Codes":
        """Of some of the vectors."""
        return Codes(self.numbers[rows], self.scales[rows], self.errors[rows])


def width(dimension: int) -> int:
    """Numbers of a code."""
    return -(-dimension // WIDTH) * WIDTH


def encode(vectors: Vectors) -> Codes:
    """Codes of vectors, float32 [n, dimension]."""
    largest = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-30)) / np.float32(LARGEST)
    # The next bfloat16 that is no smaller: float32 without its last 16 bits.
    scales = ((largest.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    numbers = np.rint(vectors / scales[:, None]).astype(np.int8)
    kept = numbers * scales[:, None].astype(np.float64)
    lost = np.linalg.norm(vectors - kept, axis=1)
    # The query's numbers are rounded, and sums of their products.
    rounding = np.linalg.norm(kept, axis=1) * (vectors.shape[1] * SUMMING + BFLOAT16 / 2 * (1 + BFLOAT16))
    numbers = np.pad(numbers, ((0, 0), (0, width(vectors.shape[1]) - vectors.shape[1])))
    return Codes(numbers, scales, ((lost + rounding) * (1 + SUMMING)).astype(np.float32))


def rounded(queries: NDArray[np.float64]) -> torch.Tensor:
    """bfloat16 [q, width] of [q, dimension]."""
    dimension = queries.shape[1]
    return torch.nn.functional.pad(torch.from_numpy(queries).to(torch.bfloat16), (0, width(dimension) - dimension))


def similarities(queries: torch.Tensor, numbers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """bfloat16 [queries, n], each within |query| · error + |itself| · BFLOAT16 of the exact one.

    queries: bfloat16 [q, width]; numbers: int8 [n, width]; scales: bfloat16 [n].

    Among torch's products with int8 it needs no second, reordered copy of the numbers: on AVX-512 it took 0.44 to 0.55
    of the time of a float32 product, and `_int_mm`, which reorders its matrix at every call, 0.6 to 0.7.
    """
    found: torch.Tensor = torch._weight_int8pack_mm(queries, numbers, scales)
    return found
