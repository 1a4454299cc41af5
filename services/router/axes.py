"""Directions along which vectors differ most: their similarities follow from a part of the numbers, but for a bound.

P holds k directions of length 1 at right angles, [k, dimension]. What P leaves of a vector v is r(v) = v - Pᵀ P v. Then
q · v = (P q) · (P v) + r(q) · r(v), and the last term is at most |r(q)| |r(v)| (Cauchy and Schwarz).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.router.evidence import Vectors

STEP = 64
"""Directions are taken by so many: products of int8 numbers are fastest with whole multiples."""
MOST_LEFT = 0.12
"""Part of the squared lengths that may be left. Of CLINC150's prompts half of the 384 directions leave 0.1."""
MOST_TAKEN = 0.75
"""Part of the directions: beyond it, what the bound costs is more than what the numbers left out save."""
SUMMING = 2.0**-23
"""Of a float32 sum, for each of its terms; twice what IEEE 754 allows (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, section 3.1), so that lengths that are rounded too are covered."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axes:
    """`directions`: P, float32; None is every axis as it is. `skew`: the norm of P Pᵀ - I, which rounding leaves."""

    dimension: int
    directions: Vectors | None = None
    skew: float = 0.0

    @classmethod
    def of(cls, vectors: Vectors) -> Self:
        """The fewest directions, a multiple of `STEP`, that leave at most `MOST_LEFT` of these vectors, [n, d]."""
        dimension = vectors.shape[1]
        energy, directions = np.linalg.eigh(vectors.T @ vectors)  # the smallest first
        energy = np.maximum(energy.astype(np.float64), 0.0)
        left = np.cumsum(energy) / max(float(energy.sum()), 1e-30)
        needed = dimension - int(np.searchsorted(left, MOST_LEFT, side="right"))
        taken = -(-needed // STEP) * STEP
        if taken > MOST_TAKEN * dimension:
            return cls(dimension)
        found = np.ascontiguousarray(directions[:, -taken:].T, dtype=np.float32)
        exact = found.astype(np.float64)
        skew = float(np.linalg.norm(exact @ exact.T - np.eye(taken), 2))
        return cls(dimension, found, skew)

    @property
    def count(self) -> int:
        """Numbers of a vector along the directions."""
        return self.dimension if self.directions is None else len(self.directions)

    def split(self, vectors: Vectors) -> tuple[Vectors, Vectors]:
        """float32 [n, count] along the directions, to within `rounding` in length; and at least |r(v)|, [n]."""
        if self.directions is None:
            return vectors, np.zeros(len(vectors), dtype=np.float32)
        along = vectors @ self.directions.T
        whole = np.einsum("nd,nd->n", vectors, vectors)
        # |r(v)|² = |v|² - |P v|² to within skew |P v|², and each of the sums to within its rounding.
        inexact = (self.skew + 4 * self.rounding) * whole
        rest = np.sqrt(np.maximum(whole - np.einsum("nd,nd->n", along, along), 0.0) + inexact)
        return along, rest

    @property
    def rounding(self) -> float:
        """By how much at most P v is off in length where it was computed in float32, |v| = 1."""
        return 0.0 if self.directions is None else self.dimension * SUMMING * self.count**0.5

    def split_exactly(self, queries: Doubles) -> tuple[Doubles, float]:
        """float64 [q, count] along the directions, and the largest |r(q)|."""
        if self.directions is None:
            return queries, 0.0
        along = queries @ self.directions.T.astype(np.float64)
        rest = queries - along @ self.directions
        return along, float(np.linalg.norm(rest, axis=1).max(initial=0.0))
