"""What is learned from the order of requests, and what is not."""

import random

import pytest

from services.inference.policies.predictor import Predictor

CYCLE = ["intent", "writer", "review"]


def likely_after(predictor: Predictor, sequence: list[str], caller: str = "ann", workflow: str = "") -> set[str]:
    seen: set[str] = set()
    for one in sequence:
        seen = set(predictor.observe(caller, workflow, one).likely)
    return seen


@pytest.mark.requirement("AS-5.1")
def test_what_came_next_each_time_is_likely_next() -> None:
    assert likely_after(Predictor(), CYCLE * 4 + ["intent", "writer"]) == {"review"}


@pytest.mark.requirement("AS-5.1")
@pytest.mark.parametrize("seed", range(10))
def test_a_random_sequence_makes_nothing_likely(seed: int) -> None:
    draw, predictor = random.Random(seed), Predictor()
    families = [f"f{number}" for number in range(6)]
    assert not any(predictor.observe("ann", "", draw.choice(families)).likely for _ in range(1000))


def test_a_little_evidence_makes_nothing_likely() -> None:
    predictor = Predictor()
    for one in CYCLE * 2:
        assert not predictor.observe("ann", "", one).likely


def test_the_last_two_decide_where_the_last_one_cannot() -> None:
    predictor = Predictor()
    sequence = ["a", "x", "b", "c", "x", "d"] * 6
    assert likely_after(predictor, [*sequence, "a", "x"]) == {"b"}
    assert likely_after(predictor, ["b", "c", "x"]) == {"d"}


def test_each_caller_has_an_order_of_its_own() -> None:
    predictor = Predictor()
    likely_after(predictor, CYCLE * 6)
    assert not likely_after(predictor, ["intent", "writer"], caller="bob")


def test_within_a_workflow_callers_learn_from_each_other() -> None:
    predictor = Predictor()
    likely_after(predictor, CYCLE * 6, workflow="blog")
    assert likely_after(predictor, ["intent", "writer"], caller="bob", workflow="blog") == {"review"}
    assert not likely_after(predictor, ["intent", "writer"], caller="bob")


def test_what_has_changed_is_learned_again() -> None:
    predictor = Predictor()
    likely_after(predictor, ["a", "b", "c"] * 50)
    assert likely_after(predictor, [*(["a", "b", "d"] * 60), "a", "b"]) == {"d"}


def test_an_adapter_asked_for_again_and_again_is_no_prediction() -> None:
    assert not likely_after(Predictor(), ["a"] * 50)


def test_predictions_that_come_true_are_told_from_those_that_do_not() -> None:
    predictor = Predictor()
    likely_after(predictor, CYCLE * 5)
    assert predictor.observe("ann", "", "intent").outcome == "hit"
    assert predictor.observe("ann", "", "review").outcome == "miss"
    assert Predictor().observe("ann", "", "review").outcome is None


def test_its_memory_is_bounded() -> None:
    predictor = Predictor(contexts=100)
    for number in range(2000):
        predictor.observe(f"caller {number % 500}", "w", f"family {number}")
    assert len(predictor._counts) <= 100
    assert len(predictor._histories) <= 100
    assert all(len(counts) <= 16 for counts in predictor._counts.values())
