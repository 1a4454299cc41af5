"""The index in memory against a plain product over everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.search import SearchIndex

DIMENSION = 6
ONE = np.ones(1, dtype=np.float32)


def unit(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 20), st.integers(0, 9)), max_size=25))
def test_the_ranking_is_that_of_what_was_put_last(changes: list[tuple[str, int, int]]) -> None:
    index, held = SearchIndex(DIMENSION), {}
    for name, count, seed in changes:
        if count:
            held[name] = unit(count, seed)
            index.put(name, held[name])
        else:
            held.pop(name, None)
            index.drop(name)
    query = unit(1, 99)
    ranked = list(index.ranked(query, ONE))
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    found = dict(ranked)
    assert found.keys() == held.keys()
    assert len(index) == len(held)
    for name, vectors in held.items():
        assert found[name] == pytest.approx(float((vectors @ query[0]).max()), abs=1e-6)


def test_an_index_beyond_one_chunk_finds_every_name() -> None:
    index = SearchIndex(DIMENSION)
    vectors = unit(9_000, 1)
    for number in range(9_000):
        index.put(f"n{number}", vectors[number : number + 1])
    for number in (0, 4_095, 4_096, 8_999):
        name, _ = next(index.ranked(vectors[number : number + 1], ONE))
        assert name == f"n{number}"


def test_the_best_part_of_a_query_counts_with_its_weight() -> None:
    index = SearchIndex(2)
    index.put("east", np.array([[1, 0]], dtype=np.float32))
    index.put("north", np.array([[0, 1]], dtype=np.float32))
    found = dict(index.ranked(np.eye(2, dtype=np.float32), np.array([1, 0.5], dtype=np.float32)))
    assert found == {"east": pytest.approx(1), "north": pytest.approx(0.5)}


def test_an_empty_index_finds_nothing_and_empty_vectors_are_refused() -> None:
    index = SearchIndex(DIMENSION)
    assert list(index.ranked(unit(1, 0), ONE)) == []
    with pytest.raises(ValueError, match="expected"):
        index.put("none", unit(1, 0)[:0])
