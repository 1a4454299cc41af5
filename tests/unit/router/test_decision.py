"""Match, ambiguous or abstain, and why."""

import pytest

from services.router.decision import Candidate, Outcome, decide, weights


def candidate(name: str, score: float, threshold: float = 0.5, refused: float = -1.0) -> Candidate:
    return Candidate(f"{name}-v1", name, score, threshold, refused)


def test_one_adapter_that_is_near_enough_is_a_match_with_its_margin() -> None:
    found = decide([candidate("far", 0.3), candidate("near", 0.7)], 0.03)
    assert (found.outcome, [one.family for one in found.matches]) == (Outcome.MATCH, ["near"])
    assert found.margin == pytest.approx(0.4)
    assert "near-v1 is near enough: similarity 0.700, its threshold 0.500" in found.why


def test_each_adapter_is_held_against_its_own_threshold() -> None:
    found = decide([candidate("strict", 0.6, 0.7), candidate("loose", 0.5, 0.4)], 0.03)
    assert found.outcome is Outcome.MATCH
    assert found.nearest is not None
    assert found.nearest.family == "loose"
    assert found.margin == pytest.approx(-0.1)


def test_adapters_within_the_margin_are_ambiguous() -> None:
    found = decide([candidate("a", 0.70), candidate("b", 0.68), candidate("c", 0.60)], 0.03)
    assert found.outcome is Outcome.AMBIGUOUS
    assert [one.family for one in found.matches] == ["a", "b", "c"]
    assert "2 adapters are within 0.03 of the best one: a-v1 0.700, b-v1 0.680" in found.why


def test_what_is_near_to_nothing_is_abstained_from_and_the_nearest_is_named() -> None:
    found = decide([candidate("a", 0.4)], 0.03)
    assert (found.outcome, found.matches, found.margin) == (Outcome.ABSTAIN, (), None)
    assert "a-v1 is the nearest and not near enough: similarity 0.400, its threshold 0.500" in found.why
    assert decide([], 0.03).why == "there is no adapter to route to"


def test_a_query_nearer_to_a_refused_one_than_to_the_adapter_does_not_suit() -> None:
    found = decide([candidate("a", 0.7, refused=0.9)], 0.03)
    assert found.outcome is Outcome.ABSTAIN
    assert "a query that no adapter is to answer is nearer: 0.900" in found.why
    assert decide([candidate("a", 0.7, refused=0.6)], 0.03).outcome is Outcome.MATCH


def test_equals_are_ranked_by_name_and_weigh_the_same() -> None:
    found = decide([candidate("b", 0.7), candidate("a", 0.7)], 0.03)
    assert [one.family for one in found.matches] == ["a", "b"]
    assert weights(found.matches) == [0.5, 0.5]
    assert weights([candidate("a", 0.8), candidate("b", 0.6)])[0] > 0.99
    assert weights([]) == []
