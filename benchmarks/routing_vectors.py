"""Vectors of adapters that are not: what a search costs depends on how near they come to queries."""

from collections.abc import Callable

import numpy as np

from services.router.evidence import Vectors

Draw = Callable[[np.random.Generator, int], Vectors]
"""The vectors of one more adapter, that many of length 1."""

BETWEEN = 0.5
"""Part of the scatter that lies between adapters; CLINC150's intents have about as much between them as within."""


def anywhere(dimension: int) -> Draw:
    """In no direction more than in another: hardly any vector comes near to a query."""

    def draw(generator: np.random.Generator, count: int) -> Vectors:
        return _of_length_one(generator.standard_normal((count, dimension), dtype=np.float32))

    return draw


def like(prompts: Vectors) -> Draw:
    """With the mean and the covariance of prompts' vectors, [n, dimension], those of an adapter around their middle."""
    values, axes = np.linalg.eigh(np.cov(prompts.T))
    spread = (axes * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)
    middle = prompts.mean(axis=0)

    def draw(generator: np.random.Generator, count: int) -> Vectors:
        scattered = generator.standard_normal((count + 1, len(middle)), dtype=np.float32) @ spread
        return _of_length_one(
            middle + np.sqrt(np.float32(BETWEEN)) * scattered[:1] + np.sqrt(np.float32(1 - BETWEEN)) * scattered[1:]
        )

    return draw


def _of_length_one(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
