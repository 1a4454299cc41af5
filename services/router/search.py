"""The nearest vectors in memory: exact, though most vectors are compared by one byte a number alone."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from services.router import coarse
from services.router.coarse import Codes, Queries
from services.router.evidence import Vectors

ROWS = 8
"""Vectors of a block. An adapter has whole blocks; the rest of its last one repeats its first vector."""
BLOCKS = 4_096
"""Of a chunk: the index grows by chunks, so that nothing is copied while it grows."""
REOPENED = BLOCKS // 4
"""Free blocks from which on a full chunk is written to again."""
EXACT_BLOCKS = 512
"""Of which the exact product is made at a time."""
FREE = -1

Numbers = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Of each block of a chunk, [blocks], between what its largest similarity lies."""

    owners: Numbers
    lower: Vectors
    upper: Vectors


class _Chunk:
    """Blocks of vectors, with their codes beside them.

    A chunk that is full is closed: its codes are reordered, which makes their product faster, and nothing is written
    to it until so much of it is free that it is worth while to open it again.
    """

    def __init__(self, dimension: int) -> None:
        self.vectors = np.zeros((BLOCKS, ROWS, dimension), dtype=np.float32)
        # The first row of every block, then the second ones: the largest of a block is found without going across.
        self.numbers: torch.Tensor | None = torch.zeros((ROWS, BLOCKS, coarse.width(dimension)), dtype=torch.int8)
        self.scales = torch.zeros((ROWS, BLOCKS), dtype=torch.bfloat16)
        self.reordered: torch.Tensor | None = None
        """In place of the numbers, of a closed chunk."""
        self.errors = np.zeros(BLOCKS, dtype=np.float32)
        self.lengths = np.zeros(BLOCKS, dtype=np.float32)
        """The largest of each block."""
        self.owners = np.full(BLOCKS, FREE, dtype=np.int64)
        """Number of the name that a block belongs to."""
        self.used = 0
        """Blocks beyond were never used."""
        self.free: list[int] = []

    def take(self) -> int | None:
        """A block to write to, if there is one."""
        if self.numbers is None:
            if len(self.free) < REOPENED:
                return None
            self._open()
        if self.free:
            return self.free.pop()
        if self.used < BLOCKS:
            self.used += 1
            return self.used - 1
        return None

    def write(self, block: int, owner: int, vectors: Vectors, codes: Codes) -> None:
        """vectors: [ROWS, dimension], with their codes; the block was taken."""
        if self.numbers is None:
            raise RuntimeError("a closed chunk was written to")
        self.vectors[block] = vectors
        self.numbers[:, block] = torch.from_numpy(codes.numbers)
        self.scales[:, block] = torch.from_numpy(codes.scales)
        self.errors[block], self.lengths[block] = codes.errors.max(), codes.lengths.max()
        self.owners[block] = owner
        if self.used == BLOCKS and not self.free:
            self.close()

    def close(self) -> None:
        """Reorder the codes, where the processor is faster with that."""
        if self.numbers is not None:
            self.reordered = coarse.reordered(self.numbers.flatten(0, 1))
            self.numbers = None if self.reordered is not None else self.numbers

    def _open(self) -> None:
        codes = coarse.encode(self.vectors.transpose(1, 0, 2).reshape(BLOCKS * ROWS, -1))
        self.numbers, self.reordered = torch.from_numpy(codes.numbers).view(ROWS, BLOCKS, -1), None

    def bounds(self, queries: Queries) -> _Bounds:
        """Of every block that was ever used."""
        used = self.used
        with torch.inference_mode():
            if self.reordered is not None:
                scales = self.scales.flatten().float()
                every = coarse.similarities_of_reordered(queries, self.reordered, scales)
                middle = every.view(-1, BLOCKS).amax(dim=0)[:used].numpy()
                lost, rounding = queries.bytes_lost, 0.0
            else:
                middle = self._largest(queries, used).float().numpy()
                lost, rounding = queries.halves_lost, coarse.BFLOAT16
        error = self.errors[:used] * np.float32(queries.length) + self.lengths[:used] * np.float32(lost)
        error += np.abs(middle) * np.float32(rounding)
        return _Bounds(self.owners[:used], middle - error, middle + error)

    def _largest(self, queries: Queries, used: int) -> torch.Tensor:
        """[used]"""
        if self.numbers is None:
            raise RuntimeError("a closed chunk has no numbers")
        found = coarse.similarities(queries, self.numbers[0, :used], self.scales[0, :used])
        for row in range(1, ROWS):
            others = coarse.similarities(queries, self.numbers[row, :used], self.scales[row, :used])
            torch.maximum(found, others, out=found)
        return found.amax(dim=0)

    def exact(self, blocks: Numbers, queries: Doubles) -> Vectors:
        """[blocks]: the largest similarity of each, in double precision, then rounded."""
        rows = self.vectors[blocks].reshape(len(blocks) * ROWS, -1).astype(np.float64)
        found = (rows @ queries.T).reshape(len(blocks), -1).max(axis=1)
        return np.asarray(found, dtype=np.float32)


@dataclass(slots=True)
class _Name:
    group: str
    count: int
    places: list[tuple[_Chunk, int]] = field(default_factory=list)


class SearchIndex:
    """Vectors by the name of what they belong to. A name belongs to a group, and counts from its floor on."""

    def __init__(self, dimension: int, threads: int = 1) -> None:
        self._dimension = dimension
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="search") if threads > 1 else None
        self._chunks: list[_Chunk] = []
        self._held: dict[str, _Name] = {}
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._floors = np.zeros(0, dtype=np.float32)
        self._groups = np.zeros(0, dtype=np.int64)
        self._spare: list[int] = []
        self._group_numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, name: str, vectors: Vectors, group: str = "") -> None:
        """Give a name these vectors, [n, dimension] of length 1, in place of those it had; ValueError for none.

        Its floor is 1 until `set_floor`.
        """
        if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != self._dimension:
            raise ValueError(f"vectors of {name} have shape {vectors.shape}, expected [n, {self._dimension}]")
        self.drop(name)
        number = self._number(name, group)
        held = self._held[name] = _Name(group, len(vectors))
        whole = np.concatenate([vectors, np.repeat(vectors[:1], -len(vectors) % ROWS, axis=0)])
        codes = coarse.encode(whole)
        for begin in range(0, len(whole), ROWS):
            rows = slice(begin, begin + ROWS)
            chunk, block = self._free_block()
            chunk.write(block, number, whole[rows], codes.part(rows))
            held.places.append((chunk, block))

    def drop(self, name: str) -> None:
        """Forget a name; unknown ones are no error."""
        held = self._held.pop(name, None)
        if held is None:
            return
        for chunk, block in held.places:
            chunk.owners[block] = FREE
            chunk.free.append(block)
        number = self._numbers.pop(name)
        self._names[number], self._groups[number] = "", FREE
        self._spare.append(number)

    def vectors(self, name: str) -> Vectors:
        """[n, dimension], as they were put; raises KeyError for an unknown name."""
        held = self._held[name]
        return np.concatenate([chunk.vectors[block] for chunk, block in held.places])[: held.count]

    def set_floor(self, name: str, floor: float) -> None:
        """From which score on `near` finds a name; raises KeyError for an unknown one."""
        self._floors[self._numbers[name]] = floor

    def near(
        self,
        queries: Vectors,
        weights: Vectors,
        at_least: int,
        floor: float | None = None,
        groups: Collection[str] | None = None,
    ) -> list[tuple[str, float]]:
        """Names of these groups (None: of all) and their scores, the highest first, equals by name.

        They are those whose score is at or above their floor, or above the one given, and the `at_least` best in any
        case. A score is the name's largest cosine similarity with one of the queries, [q, dimension], times its weight,
        [q]: that of the vectors as they were put, independent of the codes.
        """
        exact = queries.astype(np.float64) * weights[:, None]
        bounds = self._bounds(exact)
        lower = np.full(len(self._names) + 1, -np.inf, dtype=np.float32)  # the last one gathers free blocks
        for one in bounds:
            np.maximum.at(lower, one.owners, one.lower)
        included = self._included(groups)
        need = self._floors.copy() if floor is None else np.full(len(self._names), floor, dtype=np.float32)
        if included.sum() <= at_least:
            need[:] = -np.inf
        elif at_least:
            candidates = lower[:-1][included]
            np.minimum(need, np.partition(candidates, len(candidates) - at_least)[-at_least], out=need)
        # A block matters if it may reach what its name needs, and what another block of its name reaches for certain.
        need[~included] = np.inf
        wanted = np.append(np.maximum(need, lower[:-1]), np.float32(np.inf))
        best = np.full(len(self._names), -np.inf, dtype=np.float32)
        for chunk, one in zip(self._chunks, bounds, strict=True):
            blocks = np.flatnonzero(one.upper >= wanted[one.owners])
            for begin in range(0, len(blocks), EXACT_BLOCKS):
                part = blocks[begin : begin + EXACT_BLOCKS]
                np.maximum.at(best, one.owners[part], chunk.exact(part, exact))
        reached = [(self._names[number], float(best[number]), number) for number in np.flatnonzero(best >= need)]
        reached.sort(key=lambda one: (-one[1], one[0]))
        return [
            (name, score)
            for rank, (name, score, number) in enumerate(reached)
            if rank < at_least or score >= (self._floors[number] if floor is None else floor)
        ]

    def _bounds(self, queries: Doubles) -> list[_Bounds]:
        rounded = Queries(queries)
        if self._threads is None or len(self._chunks) == 1:
            return [chunk.bounds(rounded) for chunk in self._chunks]
        return list(self._threads.map(lambda chunk: chunk.bounds(rounded), self._chunks))

    def _included(self, groups: Collection[str] | None) -> NDArray[np.bool_]:
        """[names]: which of them are held, and of these groups."""
        if groups is None:
            return self._groups >= 0
        return np.isin(self._groups, [self._group_numbers[one] for one in groups if one in self._group_numbers])

    def _number(self, name: str, group: str) -> int:
        if not self._spare:
            self._spare.append(len(self._names))
            self._names.append("")
            self._floors = np.append(self._floors, np.float32(1))
            self._groups = np.append(self._groups, FREE)
        number = self._numbers[name] = self._spare.pop()
        self._names[number], self._floors[number] = name, 1
        self._groups[number] = self._group_numbers.setdefault(group, len(self._group_numbers))
        return number

    def _free_block(self) -> tuple[_Chunk, int]:
        for chunk in reversed(self._chunks):
            if (block := chunk.take()) is not None:
                return chunk, block
        chunk = _Chunk(self._dimension)
        self._chunks.append(chunk)
        chunk.used = 1
        return chunk, 0
