"""Centroids of texts' vectors: spherical k-means.

Source: Dhillon and Modha, "Concept Decompositions for Large Sparse Text Data Using Clustering", 2001; the first centres
are chosen as in k-means++ (Arthur and Vassilvitskii, 2007).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROUNDS = 25
"""Most rounds; a few hundred prompts settle in about ten."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Centroids:
    """`vectors`: [k, dimension], each of length 1. `counts`: [k], how many are nearest to each. `spreads`: [k], their
    mean cosine distance from it."""

    vectors: Vectors
    counts: npt.NDArray[np.int64]
    spreads: Vectors


def centroids(vectors: Vectors, most: int, seed: int = 0) -> Centroids:
    """At most `most` centroids of vectors, [n, dimension] of length 1; every vector itself where there are no more.

    The same vectors in the same order and the same seed give the same centroids. Raises ValueError for no vectors.
    """
    if most < 1 or not len(vectors):
        raise ValueError(f"{most} centroids of {len(vectors)} vectors: expected at least one of each")
    distinct = np.unique(vectors, axis=0)
    found = distinct if len(distinct) <= most else _settled(vectors, _first(vectors, most, seed))
    nearest = (vectors @ found.T).argmax(axis=1)
    counts = np.bincount(nearest, minlength=len(found))
    distances = 1 - np.einsum("nd,nd->n", vectors, found[nearest])
    sums = np.bincount(nearest, weights=distances, minlength=len(found))
    used = counts > 0
    spreads = np.maximum(sums[used] / counts[used], 0).astype(np.float32)
    return Centroids(np.ascontiguousarray(found[used]), counts[used], spreads)


def _first(vectors: Vectors, count: int, seed: int) -> Vectors:
    """Vectors far from each other: each is drawn by its distance from the nearest one drawn before."""
    draw = np.random.default_rng(seed)
    chosen = [int(draw.integers(len(vectors)))]
    nearest = vectors @ vectors[chosen[0]]
    for _ in range(count - 1):
        distance = np.maximum(1 - nearest, 0).astype(np.float64)
        chosen.append(int(draw.choice(len(vectors), p=distance / distance.sum())))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return vectors[chosen]


def _settled(vectors: Vectors, found: Vectors) -> Vectors:
    for _ in range(ROUNDS):
        nearest = (vectors @ found.T).argmax(axis=1)
        sums = np.zeros_like(found)
        np.add.at(sums, nearest, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centre that lost all its vectors stays where it is.
        moved = np.where(lengths > 1e-9, sums / np.maximum(lengths, 1e-9), found).astype(np.float32)
        if np.allclose(moved, found, atol=1e-6):
            break
        found = moved
    return found
