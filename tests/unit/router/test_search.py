"""The index in memory against a plain product over everything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router import coarse
from services.router.search import SearchIndex

DIMENSION = 6
ONE = np.ones(1, dtype=np.float32)


def unit(count: int, seed: int, dimension: int = DIMENSION) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


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
    st.sampled_from([6, 64, 384]),
)
def test_what_is_found_is_what_the_full_product_finds(
    changes: list[tuple[str, int, int, float]],
    at_least: int,
    parts: int,
    floor: float | None,
    groups: tuple[str, ...] | None,
    dimension: int,
) -> None:
    """After any puts and drops, with equal vectors under several names, several weighted queries, floors and groups."""
    index = SearchIndex(dimension)
    held: dict[str, np.ndarray] = {}
    floors: dict[str, float] = {}
    group = {name: ("even", "odd")[number % 2] for number, name in enumerate("abcdefgh")}
    for name, count, seed, limit in changes:
        if count:
            held[name], floors[name] = unit(count, seed, dimension), limit
            index.put(name, held[name], group[name])
            index.set_floor(name, limit)
        else:
            held.pop(name, None)
            index.drop(name)
    queries = unit(parts, 5, dimension)  # seed 5 is an adapter's too: its first vectors are found at 1
    weights = np.linspace(1, 0.6, parts, dtype=np.float32)
    asked = {name: vectors for name, vectors in held.items() if groups is None or group[name] in groups}
    expected = [
        (name, score)
        for rank, (name, score) in enumerate(ranked(product(asked, queries, weights)))
        if rank < at_least or score >= (np.float32(floors[name]) if floor is None else floor)
    ]
    assert index.near(queries, weights, at_least, floor, groups) == expected
    assert len(index) == len(held)
    for name, vectors in held.items():
        np.testing.assert_array_equal(index.vectors(name), vectors)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 64, 384, 1024]), st.floats(1e-6, 1e3))
def test_a_code_is_within_its_stated_error(seed: int, dimension: int, length: float) -> None:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((40, dimension)) ** 3  # a few large numbers, many small ones
    vectors = (length * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    # The worst query for each vector: along what the code lost.
    codes = coarse.encode(vectors)
    lost = vectors - codes.numbers[:, :dimension] * codes.scales[:, None].astype(np.float64)
    queries = np.concatenate([lost, unit(3, seed, dimension)])
    queries = (queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    scales = torch.from_numpy(codes.scales)
    assert (scales.bfloat16().float() == scales).all()
    numbers = torch.from_numpy(codes.numbers)
    for query in queries:  # each by itself, so that its own losses hold
        asked = coarse.Queries(query[None].astype(np.float64))
        exact = vectors.astype(np.float64) @ query.astype(np.float64)
        stated = asked.length * codes.errors
        found = coarse.similarities(asked, numbers, scales.bfloat16()).double().numpy()[0]
        wrong = np.abs(found - exact)
        assert (wrong <= stated + asked.halves_lost * codes.lengths + np.abs(found) * coarse.BFLOAT16).all()
        if (reordered := coarse.reordered(numbers)) is not None:
            found = coarse.similarities_of_reordered(asked, reordered, scales).double().numpy()[0]
            assert (np.abs(found - exact) <= stated + asked.bytes_lost * codes.lengths).all()
    assert (codes.errors <= length * 0.05).all()


def test_few_vectors_need_the_exact_product(monkeypatch: pytest.MonkeyPatch) -> None:
    index = SearchIndex(384)
    for number in range(500):
        index.put(f"n{number}", unit(8, number, 384))
    exact: list[int] = []
    original = index._chunks[0].exact

    def counted(blocks: np.ndarray, queries: np.ndarray) -> np.ndarray:
        exact.append(len(blocks))
        return original(blocks, queries)

    monkeypatch.setattr(index._chunks[0], "exact", counted)
    index.near(unit(1, 99_999, 384), ONE, 2)
    assert sum(exact) < 50


def test_an_index_beyond_one_chunk_finds_every_name() -> None:
    index = SearchIndex(DIMENSION)
    vectors = unit(9_000, 1)
    for number in range(9_000):
        index.put(f"n{number}", vectors[number : number + 1])
    for number in (0, 4_095, 4_096, 8_999):
        [(name, _)] = index.near(vectors[number : number + 1], ONE, 1, floor=2)
        assert name == f"n{number}"


def test_a_full_index_is_exact_after_thousands_of_replacements() -> None:
    """Chunks are closed when they are full, and opened when enough of them is free."""
    dimension, adapters = 16, 700
    index, held = SearchIndex(dimension), {}
    for number in range(adapters):
        held[f"n{number}"] = unit(64, number, dimension)
        index.put(f"n{number}", held[f"n{number}"])
    assert index._chunks[0].numbers is None or not torch.cpu._is_vnni_supported()
    for number in range(0, adapters, 2):  # half of the first chunk becomes free, and is written to again
        index.drop(f"n{number}")
        del held[f"n{number}"]
    for number in range(adapters, adapters + 350):
        held[f"n{number}"] = unit(64, number, dimension)
        index.put(f"n{number}", held[f"n{number}"])
    assert len(index._chunks) == 2
    for seed in range(5):
        query = unit(2, 10_000 + seed, dimension)
        weights = np.array([1, 0.9], dtype=np.float32)
        assert index.near(query, weights, 9, floor=2) == ranked(product(held, query, weights))[:9]


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
