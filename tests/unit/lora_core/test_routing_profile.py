"""Centroids and the routing profile's file."""

from pathlib import Path

import numpy as np
import pytest

from lora_core.centroids import centroids
from lora_core.errors import CorruptAdapter
from lora_core.format.safetensors_file import write_weights
from lora_core.routing_profile import MOST_CENTROIDS, MOST_HELD_OUT, RoutingProfile, prompts_to_embed


def around(directions: np.ndarray, each: int, spread: float, seed: int = 0) -> np.ndarray:
    """[directions * each, dimension], length 1."""
    noise = np.random.default_rng(seed).normal(0, spread, (each, *directions.shape))
    vectors = (directions[None] + noise).reshape(-1, directions.shape[1])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_centroids_find_the_groups_with_their_sizes_and_spreads() -> None:
    tight, loose = around(np.eye(8)[:1], 30, 0.01), around(np.eye(8)[1:2], 10, 0.1)
    found = centroids(np.concatenate([tight, loose]), 2)
    order = np.argsort(-found.counts)
    assert found.counts[order].tolist() == [30, 10]
    np.testing.assert_allclose(found.vectors[order] @ np.eye(8)[:2].T, np.eye(2), atol=0.12)
    assert found.spreads[order[0]] < 0.001 < found.spreads[order[1]]
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)


def test_the_same_vectors_give_the_same_centroids_and_no_more_than_there_are() -> None:
    vectors = around(np.eye(6), 20, 0.2)
    assert (centroids(vectors, 5).vectors == centroids(vectors, 5).vectors).all()
    few = around(np.eye(6)[:3], 1, 0.0)
    repeated = centroids(np.concatenate([few, few]), 32)
    assert len(repeated.vectors) == 3
    assert repeated.counts.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="of 0 vectors"):
        centroids(vectors[:0], 5)


def test_a_profile_holds_a_fifth_of_the_prompts_out_and_comes_back_from_its_file(tmp_path: Path) -> None:
    profile = RoutingProfile.of(around(np.eye(16), 20, 0.1))
    assert len(profile.held_out) == 64
    assert int(profile.counts.sum()) == 256
    assert len(profile.centroids) <= MOST_CENTROIDS
    profile.save(tmp_path / "routing.safetensors")
    read = RoutingProfile.load(tmp_path / "routing.safetensors")
    np.testing.assert_allclose(read.centroids @ read.held_out.T, profile.centroids @ profile.held_out.T, atol=1e-3)
    assert read.counts.tolist() == profile.counts.tolist()
    assert len(RoutingProfile.of(around(np.eye(16), 200, 0.1)).held_out) == MOST_HELD_OUT


def test_a_single_prompt_makes_a_profile_without_held_out_ones(tmp_path: Path) -> None:
    RoutingProfile.of(around(np.eye(4)[:1], 1, 0.0)).save(tmp_path / "one")
    read = RoutingProfile.load(tmp_path / "one")
    assert (read.centroids.shape, read.held_out.shape) == ((1, 4), (0, 4))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"held_out": None}, "it lacks held_out"),
        ({"centroids": np.zeros((0, 4), np.float16)}, "do not go together"),
        ({"held_out": np.zeros((2, 5), np.float16)}, "do not go together"),
        ({"counts": np.zeros(3, np.float32)}, "one number for each centroid"),
        ({"centroids": np.full((2, 4), np.nan, np.float16)}, "not finite"),
        ({"centroids": np.zeros(4, np.float16)}, "expected"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, changed: dict[str, np.ndarray], reason: str) -> None:
    good = {
        "centroids": np.eye(2, 4, dtype=np.float16),
        "counts": np.ones(2, np.float32),
        "spreads": np.zeros(2, np.float32),
        "held_out": np.eye(1, 4, dtype=np.float16),
    }
    arrays = {name: array for name, array in (good | changed).items() if array is not None}
    write_weights(tmp_path / "profile", arrays, {})
    with pytest.raises(CorruptAdapter, match=reason):
        RoutingProfile.load(tmp_path / "profile")


def test_prompts_to_embed_are_distinct_and_an_even_share() -> None:
    assert prompts_to_embed([" a ", "a", "", "b"], 10) == ["a", "b"]
    assert prompts_to_embed([str(number) for number in range(100)], 4) == ["0", "25", "50", "75"]
