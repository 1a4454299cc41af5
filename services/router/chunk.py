"""A part of the vectors in memory, in blocks, with their codes beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.router.axes import MOST_LEFT, Axes, Doubles
from services.router.coarse import TOGETHER, Queries, about_each, encode, width
from services.router.evidence import Vectors

ROWS = TOGETHER
"""Vectors of a block. An adapter has whole blocks; the rest of its last one repeats its first vector."""
BLOCKS = 4_096
"""Of a chunk: the index grows by chunks, so that nothing is copied while it grows."""
TOO_MUCH_LEFT = MOST_LEFT + 0.06
"""Of the squared lengths: then the axes no longer suit the vectors that were written."""
SAMPLED = 8
"""One in so many vectors counts for new axes."""
PARTS = 64
"""Of a chunk, of each of which the nearest vector is a seed."""
AT_A_TIME = 512
"""Blocks that get new codes at a time."""
KEPT = 32_767
"""Largest number of a vector as it is kept, in 16 bits."""
FREE = -1

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of the blocks up to the last one in use their owners, [blocks], and of each vector its largest similarity, about,
    [blocks, ROWS], which is off by the `error` of its block, [blocks], at most. `seeds`: some of the nearest rows."""

    owners: Numbers
    about: Vectors
    error: Vectors
    seeds: Numbers


def rounded(vectors: Vectors) -> tuple[NDArray[np.int16], Vectors]:
    """int16 [n, dimension] and what to multiply them with, float32 [n]: a cosine moves by some 0.000002."""
    scales = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-30)) / np.float32(KEPT)
    return np.rint(vectors / scales[:, None]).astype(np.int16), scales


@dataclass(slots=True)
class Chunk:
    """`BLOCKS` blocks of vectors, some of them free."""

    dimension: int
    axes: Axes
    """That the codes are along."""
    vectors: NDArray[np.int16] = field(init=False)
    scales: Vectors = field(init=False)
    numbers: NDArray[np.int8] = field(init=False)
    code_scales: Vectors = field(init=False)
    """Codes of the vectors (see `coarse.py`)."""
    lost: Vectors = field(init=False)
    rest: Vectors = field(init=False)
    """Of each vector, see `coarse.py`."""
    block_lost: Vectors = field(init=False)
    block_rest: Vectors = field(init=False)
    """The largest of each block."""
    owners: Numbers = field(init=False)
    """Number of the name that a block belongs to."""
    free: list[int] = field(init=False)
    _written: int = 0
    """Blocks, since the axes were looked at."""

    def __post_init__(self) -> None:
        count = BLOCKS * ROWS
        self.vectors = np.zeros((count, self.dimension), dtype=np.int16)
        self.scales = np.zeros(count, dtype=np.float32)
        self.numbers = np.zeros((count, width(self.axes.count)), dtype=np.int8)
        self.code_scales = np.zeros(count, dtype=np.float32)
        self.lost, self.rest = np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.float32)
        self.block_lost, self.block_rest = np.zeros(BLOCKS, dtype=np.float32), np.zeros(BLOCKS, dtype=np.float32)
        self.owners = np.full(BLOCKS, FREE, dtype=np.int64)
        self.free = list(range(BLOCKS - 1, -1, -1))

    def write(self, owner: int, vectors: Vectors) -> list[int]:
        """Put these vectors, whole blocks of them, [n · ROWS, dimension], into as many free blocks as there are.

        Returns the blocks that were taken, in order.
        """
        taken = [self.free.pop() for _ in range(min(len(self.free), len(vectors) // ROWS))]
        blocks = np.array(taken, dtype=np.int64)
        rows = _rows(blocks)
        self.vectors[rows], self.scales[rows] = rounded(vectors[: len(rows)])
        self._encode(blocks)
        self.owners[blocks] = owner
        self._written += len(taken)
        if self._written >= BLOCKS:
            self._look_at_axes()
        return taken

    def release(self, blocks: list[int]) -> None:
        """Blocks that nothing is to be found in from now on."""
        self.owners[blocks] = FREE
        self.code_scales[_rows(np.array(blocks, dtype=np.int64))] = 0.0
        self.free.extend(blocks)

    def values(self, rows: Numbers) -> Vectors:
        """float32 [n, dimension]: these vectors, as they are kept."""
        return np.asarray(self.vectors[rows] * self.scales[rows, None], dtype=np.float32)

    def of_blocks(self, blocks: list[int]) -> Vectors:
        """float32 [blocks · ROWS, dimension], as they are kept."""
        return self.values(_rows(np.array(blocks, dtype=np.int64)))

    def bounds(self, queries: Sequence[Queries], included: Sequence[NDArray[np.bool_]]) -> list[Bounds]:
        """queries: of each request, along this chunk's axes. included: of each request [names + 1], whether a name's
        vectors count, last `FREE`."""
        used = BLOCKS if not self.free else self._used
        found = about_each(queries, self.numbers[: used * ROWS], self.code_scales[: used * ROWS])
        return [self._bounds(used, *one) for one in zip(queries, included, found, strict=True)]

    def _bounds(self, used: int, queries: Queries, included: NDArray[np.bool_], found: Vectors) -> Bounds:
        about, owners = found.reshape(used, ROWS), self.owners[:used]
        if not (wanted := included[owners]).all():
            about[~wanted] = -np.inf
        length = max(1, about.size // PARTS)
        parts = about.reshape(-1)[: about.size // length * length].reshape(-1, length)
        seeds = parts.argmax(axis=1) + np.arange(len(parts)) * length
        return Bounds(owners, about, queries.error(self.block_lost[:used], self.block_rest[:used]), seeds)

    def reaching(self, bounds: Bounds, wanted: Vectors, queries: Queries) -> Numbers:
        """Rows that may have the similarity that their names want, [names + 1]."""
        of_block = wanted[bounds.owners]
        rows = np.flatnonzero(bounds.about >= (of_block - bounds.error)[:, None])
        own = queries.error(self.lost[rows], self.rest[rows])
        return np.asarray(rows[bounds.about.reshape(-1)[rows] >= of_block[rows // ROWS] - own])

    def exact(self, rows: Numbers, queries: Doubles) -> Vectors:
        """[n]: the largest similarity of each, in double precision, then rounded."""
        return np.asarray((self.values(rows).astype(np.float64) @ queries.T).max(axis=1), dtype=np.float32)

    @property
    def _used(self) -> int:
        """Blocks beyond are free."""
        taken = np.flatnonzero(self.owners != FREE)
        return int(taken[-1]) + 1 if len(taken) else 0

    def _encode(self, blocks: Numbers) -> None:
        rows = _rows(blocks)
        made = encode(self.values(rows), self.axes)
        self.numbers[rows], self.code_scales[rows] = made.numbers, made.scales
        self.lost[rows], self.rest[rows] = made.lost, made.rest
        self.block_lost[blocks] = made.lost.reshape(-1, ROWS).max(axis=1)
        self.block_rest[blocks] = made.rest.reshape(-1, ROWS).max(axis=1)

    def _look_at_axes(self) -> None:
        self._written = 0
        taken = np.flatnonzero(self.owners != FREE)
        before = self.axes.directions
        if before is not None and float((self.block_rest[taken] ** 2).mean()) <= TOO_MUCH_LEFT:
            return
        found = Axes.of(self.values(_rows(taken)[::SAMPLED]))
        if before is None and found.directions is None:
            return
        self.axes = found
        self.numbers = np.zeros((BLOCKS * ROWS, width(found.count)), dtype=np.int8)
        for begin in range(0, len(taken), AT_A_TIME):
            self._encode(taken[begin : begin + AT_A_TIME])


def _rows(blocks: Numbers) -> Numbers:
    """Numbers of the vectors of these blocks."""
    return (blocks[:, None] * ROWS + np.arange(ROWS)).ravel()
