"""The nearest vectors in memory: exact, though most vectors are compared by a byte of a part of their numbers alone."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.router.axes import SUMMING, Axes, Doubles
from services.router.chunk import FREE, ROWS, Bounds, Chunk, Numbers
from services.router.coarse import Queries
from services.router.evidence import Vectors

SEEDS = 16
"""Vectors whose exact similarities are computed first: the nearest ones, about."""
AT_A_TIME = 4_096
"""Vectors that are compared in float32 at a time."""

S = TypeVar("S")
T = TypeVar("T")


@dataclass(slots=True)
class _Name:
    group: str
    count: int
    places: list[tuple[Chunk, list[int]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Vectors of one chunk that may matter: `rows`, `owners` [n], and between what their similarity lies."""

    chunk: Chunk
    rows: Numbers
    owners: Numbers
    lower: Vectors
    upper: Vectors

    def only(self, those: NDArray[np.bool_]) -> "_Candidates":
        return _Candidates(self.chunk, self.rows[those], self.owners[those], self.lower[those], self.upper[those])


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request of `SearchIndex.near`, by its parameters."""

    queries: Vectors
    weights: Vectors
    at_least: int
    floor: float | None = None
    groups: Collection[str] | None = None


class SearchIndex:
    """Vectors by the name of what they belong to. A name belongs to a group, and counts from its floor on."""

    def __init__(self, dimension: int, threads: int = 1) -> None:
        self._dimension = dimension
        self._others = ThreadPoolExecutor(threads - 1, thread_name_prefix="search") if threads > 1 else None
        self._shares = threads
        self._chunks: list[Chunk] = []
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
        while len(whole):
            chunk = self._chunk_with_room()
            taken = chunk.write(number, whole)
            held.places.append((chunk, taken))
            whole = whole[len(taken) * ROWS :]

    def drop(self, name: str) -> None:
        """Forget a name; unknown ones are no error."""
        held = self._held.pop(name, None)
        if held is None:
            return
        for chunk, blocks in held.places:
            chunk.release(blocks)
        number = self._numbers.pop(name)
        self._names[number], self._groups[number] = "", FREE
        self._spare.append(number)

    def vectors(self, name: str) -> Vectors:
        """[n, dimension], as they are kept: those that were put, to 16 bits. Raises KeyError for an unknown name."""
        held = self._held[name]
        return np.concatenate([chunk.of_blocks(blocks) for chunk, blocks in held.places])[: held.count]

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
        [q]: that of the vectors as they are kept, independent of the codes.
        """
        return self.near_each([Wanted(queries, weights, at_least, floor, groups)])[0]

    def near_each(self, wanted: Sequence[Wanted]) -> list[list[tuple[str, float]]]:
        """`near` of several requests, for all of which the codes are read together."""
        exact = [one.queries.astype(np.float64) * one.weights[:, None] for one in wanted]
        included = [self._included(one.groups) for one in wanted]
        along = {id(chunk.axes): chunk.axes for chunk in self._chunks}
        rotated = {key: [Queries(one, axes) for one in exact] for key, axes in along.items()}
        every = [np.append(one, False) for one in included]
        bounds = self._each(lambda chunk: chunk.bounds(rotated[id(chunk.axes)], every), self._chunks)
        return [
            self._near(
                one,
                exact[at],
                included[at],
                [of_chunk[at] for of_chunk in bounds],
                {key: queries[at] for key, queries in rotated.items()},
            )
            for at, one in enumerate(wanted)
        ]

    def _near(
        self,
        request: Wanted,
        exact: Doubles,
        included: NDArray[np.bool_],
        bounds: Sequence[Bounds],
        rotated: Mapping[int, Queries],
    ) -> list[tuple[str, float]]:
        """bounds: of each chunk. rotated: the queries along the axes with this id."""
        floor, at_least = request.floor, request.at_least
        # What each name needs to be found; the last number stands for free blocks.
        need = self._floors.copy() if floor is None else np.full(len(self._names), floor, dtype=np.float32)
        np.minimum(need, self._surely_reached(bounds, exact, included, at_least), out=need)
        need[~included] = np.inf
        wanted = np.append(need, np.float32(np.inf))

        def candidates_of(found: tuple[Chunk, Bounds]) -> _Candidates:
            chunk, one = found
            return _candidates(chunk, chunk.reaching(one, wanted, rotated[id(chunk.axes)]), exact)

        candidates = self._each(candidates_of, list(zip(self._chunks, bounds, strict=True)))
        lower = np.full(len(wanted), -np.inf, dtype=np.float32)
        for one in candidates:
            np.maximum.at(lower, one.owners, one.lower)
        np.maximum(wanted, lower, out=wanted)
        best = np.full(len(wanted), -np.inf, dtype=np.float32)
        for one in candidates:
            left = one.only(one.upper >= wanted[one.owners])
            np.maximum.at(best, left.owners, left.chunk.exact(left.rows, exact))
        reached = [(self._names[at], float(best[at]), at) for at in np.flatnonzero(best[:-1] >= need)]
        reached.sort(key=lambda one: (-one[1], one[0]))
        return [
            (name, score)
            for rank, (name, score, number) in enumerate(reached)
            if rank < at_least or score >= (self._floors[number] if floor is None else floor)
        ]

    def _surely_reached(
        self, bounds: Sequence[Bounds], queries: Doubles, included: NDArray[np.bool_], at_least: int
    ) -> np.float32:
        """A similarity that `at_least` of these names reach; nearly the highest, where that is found easily."""
        if not at_least:
            return np.float32(np.inf)
        if included.sum() <= at_least:
            return np.float32(-np.inf)
        lower = np.full(len(included) + 1, -np.inf, dtype=np.float32)
        for chunk, rows in zip(self._chunks, _seeds(bounds), strict=True):
            if len(rows):  # of most chunks there are none
                np.maximum.at(lower, chunk.owners[rows // ROWS], chunk.exact(rows, queries))
        lower[:-1][~included] = -np.inf
        if np.isfinite(lower[:-1]).sum() < at_least:  # the nearest blocks are of too few names
            for one in bounds:
                np.maximum.at(lower, one.owners, one.about.max(axis=1) - one.error)
            lower[:-1][~included] = -np.inf
        return np.float32(np.partition(lower[:-1], len(included) - at_least)[-at_least])

    def _each(self, call: Callable[[S], T], given: Sequence[S]) -> list[T]:
        """In equal shares by the threads, of which the calling one is one."""
        if self._others is None or len(given) < 2:
            return list(map(call, given))
        first, *others = [given[at :: self._shares] for at in range(self._shares)]
        waiting = [self._others.submit(lambda share: list(map(call, share)), share) for share in others]
        done = [list(map(call, first)), *(one.result() for one in waiting)]
        return [done[at % self._shares][at // self._shares] for at in range(len(given))]

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

    def _chunk_with_room(self) -> Chunk:
        for chunk in reversed(self._chunks):
            if chunk.free:
                return chunk
        axes = self._chunks[-1].axes if self._chunks else Axes(self._dimension)
        self._chunks.append(Chunk(self._dimension, axes))
        return self._chunks[-1]


def _seeds(bounds: Sequence[Bounds]) -> list[Numbers]:
    """Of each chunk those of its seeds that are among the nearest of all."""
    values = [one.about.reshape(-1)[one.seeds] for one in bounds]
    every = np.concatenate(values)
    limit = np.partition(every, -SEEDS)[-SEEDS] if len(every) > SEEDS else -np.inf
    return [one.seeds[value >= limit] for one, value in zip(bounds, values, strict=True)]


def _candidates(chunk: Chunk, rows: Numbers, queries: Doubles) -> _Candidates:
    """These rows, with a product in float32."""
    halves = queries.T.astype(np.float32)
    found = np.empty(len(rows), dtype=np.float32)
    for begin in range(0, len(rows), AT_A_TIME):
        part = slice(begin, begin + AT_A_TIME)
        found[part] = (chunk.values(rows[part]) @ halves).max(axis=1)
    # Of lengths 1: the sum, and the queries that were rounded.
    error = np.float32((chunk.dimension + 4) * SUMMING * np.linalg.norm(queries, axis=1).max(initial=0.0))
    return _Candidates(chunk, rows, chunk.owners[rows // ROWS], found - error, found + error)
