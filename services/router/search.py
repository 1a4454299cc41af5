"""The nearest vectors in memory: exact, one product over all of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.router.evidence import Vectors

ROWS = 8
"""Vectors of a block. An adapter has whole blocks; the rest of its last one repeats its first vector."""
BLOCKS = 4_096
"""Of a chunk: the index grows by chunks, so that nothing is copied while it grows."""


@dataclass(slots=True)
class _Chunk:
    vectors: Vectors
    """[blocks, ROWS, dimension]"""
    owners: NDArray[np.int64]
    """[blocks]: number of the adapter, -1 for a free block."""
    used: int = 0
    """Blocks beyond were never used."""
    free: list[int] = field(default_factory=list)


class SearchIndex:
    """Vectors by the name of what they belong to."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._chunks: list[_Chunk] = []
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._places: dict[str, list[tuple[_Chunk, int]]] = {}
        self._spare: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def put(self, name: str, vectors: Vectors) -> None:
        """Give a name these vectors, [n, dimension] of length 1, in place of those it had; ValueError for none."""
        if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != self._dimension:
            raise ValueError(f"vectors of {name} have shape {vectors.shape}, expected [n, {self._dimension}]")
        self.drop(name)
        number = self._number(name)
        places = self._places[name] = []
        for begin in range(0, len(vectors), ROWS):
            part = vectors[begin : begin + ROWS]
            chunk, block = self._free_block()
            chunk.vectors[block, : len(part)] = part
            chunk.vectors[block, len(part) :] = vectors[0]
            chunk.owners[block] = number
            places.append((chunk, block))

    def drop(self, name: str) -> None:
        """Forget a name; unknown ones are no error."""
        for chunk, block in self._places.pop(name, []):
            chunk.owners[block] = -1
            chunk.free.append(block)
        if (number := self._numbers.pop(name, None)) is not None:
            self._names[number] = ""
            self._spare.append(number)

    def ranked(self, queries: Vectors, weights: Vectors) -> Iterator[tuple[str, float]]:
        """Names and scores, the highest first.

        A score is the name's largest cosine similarity with one of the queries, [q, dimension], times its weight, [q].
        """
        best = np.full(len(self._names) + 1, -np.inf, dtype=np.float32)  # the last one gathers free blocks
        for chunk in self._chunks:
            flat = chunk.vectors[: chunk.used].reshape(-1, self._dimension)
            products = (queries * weights[:, None]) @ flat.T
            blocks = products.max(axis=0).reshape(-1, ROWS).max(axis=1)
            np.maximum.at(best, chunk.owners[: chunk.used], blocks)
        for number in np.argsort(-best[:-1], kind="stable"):
            if name := self._names[number]:
                yield name, float(best[number])

    def _number(self, name: str) -> int:
        if self._spare:
            number = self._spare.pop()
            self._names[number] = name
        else:
            number = len(self._names)
            self._names.append(name)
        self._numbers[name] = number
        return number

    def _free_block(self) -> tuple[_Chunk, int]:
        for chunk in reversed(self._chunks):
            if chunk.free:
                return chunk, chunk.free.pop()
            if chunk.used < BLOCKS:
                chunk.used += 1
                return chunk, chunk.used - 1
        shape = (BLOCKS, ROWS, self._dimension)
        chunk = _Chunk(np.zeros(shape, dtype=np.float32), np.full(BLOCKS, -1, dtype=np.int64))
        self._chunks.append(chunk)
        chunk.used = 1
        return chunk, 0
