"""The index in memory against a plain product over everything."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router import chunk, coarse
from services.router.axes import Axes
from services.router.search import SearchIndex, Wanted

DIMENSION = 6
ONE = np.ones(1, dtype=np.float32)


def unit(count: int, seed: int, dimension: int = DIMENSION) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def in_few_directions(count: int, seed: int, dimension: int) -> np.ndarray:
    """Most of their length lies in a few directions, as that of texts' vectors does."""
    shrinking = np.random.default_rng(seed).normal(size=(count, dimension)) * 0.97 ** np.arange(dimension)
    return (shrinking / np.linalg.norm(shrinking, axis=1, keepdims=True)).astype(np.float32)


def product(held: dict[str, np.ndarray], queries: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Every score in double precision, rounded once."""
    weighted = queries.astype(np.float64) * weights[:, None]
    return {name: float(np.float32((vectors @ weighted.T).max())) for name, vectors in held.items()}


def ranked(scores: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


def everything(index: SearchIndex, queries: np.ndarray, weights: np.ndarray) -> list[tuple[str, float]]:
    return index.near(queries, weights, 0, floor=-2)


CHANGES = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 20), st.integers(0, 9), st.floats(-1, 1, width=32)),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(
    CHANGES,
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from([None, 0.3]),
    st.sampled_from([None, ("even",), ("odd", "none"), ("none",)]),
    st.sampled_from([(6, unit), (64, unit), (384, in_few_directions)]),
    st.sampled_from([2, chunk.BLOCKS]),
)
def test_what_is_found_is_what_the_full_product_finds(
    changes: list[tuple[str, int, int, float]],
    at_least: int,
    parts: int,
    floor: float | None,
    groups: tuple[str, ...] | None,
    kind: tuple[int, Callable[[int, int, int], np.ndarray]],
    blocks: int,
) -> None:
    """After any puts and drops, with equal vectors under several names, several weighted queries, floors and groups, and
    with small chunks, which are filled, emptied, and given other axes."""
    dimension, draw = kind
    index = SearchIndex(dimension)
    held: dict[str, np.ndarray] = {}
    floors: dict[str, float] = {}
    group = {name: ("even", "odd")[number % 2] for number, name in enumerate("abcdefgh")}
    with mock.patch.object(chunk, "BLOCKS", blocks):
        for name, count, seed, limit in changes:
            if count:
                index.put(name, draw(count, seed, dimension), group[name])
                held[name], floors[name] = index.vectors(name), limit
                np.testing.assert_allclose(held[name], draw(count, seed, dimension), atol=2e-5)
                index.set_floor(name, limit)
            else:
                held.pop(name, None)
                index.drop(name)
    queries = draw(parts, 5, dimension)  # seed 5 is an adapter's too: its first vectors are found at 1
    weights = np.linspace(1, 0.6, parts, dtype=np.float32)
    asked = {name: vectors for name, vectors in held.items() if groups is None or group[name] in groups}
    expected = [
        (name, score)
        for rank, (name, score) in enumerate(ranked(product(asked, queries, weights)))
        if rank < at_least or score >= (np.float32(floors[name]) if floor is None else floor)
    ]
    with mock.patch.object(chunk, "BLOCKS", blocks):
        assert index.near(queries, weights, at_least, floor, groups) == expected
    assert len(index) == len(held)
    for name, vectors in held.items():
        np.testing.assert_array_equal(index.vectors(name), vectors)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 64, 384, 1024]), st.booleans(), st.booleans())
def test_a_similarity_by_codes_is_within_its_stated_bounds(seed: int, dimension: int, few: bool, own: bool) -> None:
    vectors = in_few_directions(80, seed, dimension) if few else unit(80, seed, dimension)
    axes = Axes.of(vectors) if own else Axes(dimension)
    codes = coarse.encode(vectors, axes)
    # The worst query for each vector: along what the code and the axes lost.
    kept = codes.numbers[:, : axes.count] * codes.scales[:, None].astype(np.float64)
    lost = vectors - (kept if axes.directions is None else kept @ axes.directions)
    worst = lost / np.maximum(np.linalg.norm(lost, axis=1, keepdims=True), 1e-30)
    for query in [*worst[:20], *-worst[:20], *unit(3, seed, dimension).astype(np.float64)]:
        exact = vectors.astype(np.float64) @ query
        asked = coarse.Queries(query[None], axes)
        wrong = np.abs(asked.about(codes.numbers, codes.scales) - exact)
        assert (wrong <= asked.error(codes.lost, codes.rest)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 99), st.sampled_from([None, 0.3])), min_size=1, max_size=9),
    st.sampled_from([None, ("even",)]),
    st.sampled_from([(6, unit), (64, unit), (384, in_few_directions)]),
)
def test_what_is_searched_together_is_found_as_it_is_alone(
    requests: list[tuple[int, int, float | None]], groups: tuple[str, ...] | None, drawn: tuple[int, Callable[..., Any]]
) -> None:
    dimension, draw = drawn
    index = SearchIndex(dimension)
    for number in range(12):
        index.put(str(number), draw(5 + number, number, dimension), ("even", "odd")[number % 2])
        index.set_floor(str(number), 0.2)
    wanted = [
        Wanted(draw(count, seed, dimension), np.linspace(1, 0.5, count, dtype=np.float32), 2, floor, groups)
        for count, seed, floor in requests
    ]
    alone = [index.near(one.queries, one.weights, one.at_least, one.floor, one.groups) for one in wanted]
    assert index.near_each(wanted) == alone


def test_directions_are_as_few_as_the_vectors_allow() -> None:
    few = Axes.of(in_few_directions(2_000, 1, 384))
    assert few.count == 64
    assert Axes.of(unit(2_000, 1, 384)).directions is None
    _, rest = few.split(in_few_directions(100, 2, 384))
    assert 0 < (rest**2).mean() < 0.12


def test_few_vectors_need_the_exact_product(monkeypatch: pytest.MonkeyPatch) -> None:
    index = SearchIndex(384)
    for number in range(500):
        index.put(f"n{number}", unit(8, number, 384))
    exact: list[int] = []
    original = chunk.Chunk.exact

    def counted(self: chunk.Chunk, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
        exact.append(len(rows))
        return original(self, rows, queries)

    monkeypatch.setattr(chunk.Chunk, "exact", counted)
    index.near(unit(1, 99_999, 384), ONE, 2)
    assert sum(exact) < 250


def test_an_index_beyond_one_chunk_finds_every_name() -> None:
    index = SearchIndex(DIMENSION)
    vectors = unit(9_000, 1)
    for number in range(9_000):
        index.put(f"n{number}", vectors[number : number + 1])
    for number in (0, 4_095, 4_096, 8_999):
        [(name, _)] = index.near(vectors[number : number + 1], ONE, 1, floor=2)
        assert name == f"n{number}"


@pytest.mark.parametrize("draw", [unit, in_few_directions])
def test_a_full_index_is_exact_after_thousands_of_replacements(draw: Callable[[int, int, int], np.ndarray]) -> None:
    """Full chunks compare by few directions where the vectors allow it, and by others when other vectors come."""
    dimension, adapters = 192, chunk.BLOCKS * chunk.ROWS // 64
    index, held = SearchIndex(dimension, threads=2), {}
    for number in range(adapters):
        index.put(f"n{number}", draw(64, number, dimension), "ab"[number % 2])
    first = index._chunks[0].axes
    assert (first.directions is not None) == (draw is in_few_directions)
    for number in range(adapters, 2 * adapters + 90):
        if number < 2 * adapters:
            index.drop(f"n{number - adapters}")
        index.put(f"n{number}", draw(64, number, dimension)[:, ::-1].copy(), "ab"[number % 2])
        held[f"n{number}"] = index.vectors(f"n{number}")
    assert len(index._chunks) == 2
    assert (index._chunks[0].axes is not first) == (draw is in_few_directions)
    for seed in range(3):
        query = draw(2, 10_000 + seed, dimension)[:, ::-1].copy()
        weights = np.array([1, 0.9], dtype=np.float32)
        wanted = ranked(product(held, query, weights))
        assert index.near(query, weights, 9, floor=2) == wanted[:9]
        limit = wanted[20][1]
        assert index.near(query, weights, 2, floor=limit) == wanted[:21]
        mine = [one for one in wanted if int(one[0][1:]) % 2 == 0]
        assert index.near(query, weights, 9, floor=2, groups=("a",)) == mine[:9]


def test_one_name_with_all_the_nearest_vectors_does_not_hide_the_second() -> None:
    index = SearchIndex(DIMENSION)
    near = unit(1, 1) + 0.01 * unit(2_000, 2)
    index.put("many", (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32))
    for number in range(5):
        index.put(f"n{number}", unit(1, 10 + number))
    held = {name: index.vectors(name) for name in ("many", *(f"n{number}" for number in range(5)))}
    assert index.near(unit(1, 1), ONE, 3, floor=2) == ranked(product(held, unit(1, 1), ONE))[:3]


def test_the_best_part_of_a_query_counts_with_its_weight() -> None:
    index = SearchIndex(2)
    index.put("east", np.array([[1, 0]], dtype=np.float32))
    index.put("north", np.array([[0, 1]], dtype=np.float32))
    found = dict(everything(index, np.eye(2, dtype=np.float32), np.array([1, 0.5], dtype=np.float32)))
    assert found == {"east": pytest.approx(1), "north": pytest.approx(0.5)}


def test_an_empty_index_finds_nothing_and_empty_vectors_are_refused() -> None:
    index = SearchIndex(DIMENSION)
    assert index.near(unit(1, 0), ONE, 2) == []
    with pytest.raises(ValueError, match="expected"):
        index.put("none", unit(1, 0)[:0])
