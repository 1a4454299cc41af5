"""The verdict of a policy on a score."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.policy import Agreement, Comparison, Decision, InvalidPolicy, Judgement, Mode, Policy, decide
from services.registry.required import Measured, Preferred

points = st.floats(0, 100)
SIMPLE = Policy(mode=Mode.SIMPLE)
OLD = "tax-law-lora-v1.0.0"


def good(decided: int = 40, against: str = OLD, samples: int = 40, fall: float = 0.0, **fallen: float) -> Judgement:
    """A score far above the lines, compared with another version."""
    comparison = Comparison(against, samples, -fall, -fall - 1, 1 - fall, {n: -f for n, f in fallen.items()})
    return Judgement(96, 93, 98, fall > 1 or bool(fallen), decided, comparison)


@st.composite
def judgements(draw: st.DrawFn) -> Judgement:
    low, score, high = sorted(draw(st.tuples(points, points, points)))
    return Judgement(score, low, high, draw(st.booleans()), draw(st.integers(1, 60)))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    reject_below, approve_at = sorted(draw(st.tuples(points, points)))
    return Policy(draw(st.sampled_from(Mode)), approve_at, reject_below, allow_lower_threshold=draw(st.booleans()))


@pytest.mark.requirement("LA-5.1")
@pytest.mark.parametrize(
    ("mode", "agreement", "decision"),
    [
        (Mode.CONFIDENT, Agreement(40, 0.8, 0.7, 0.9), Decision.APPROVE),
        (Mode.CONFIDENT, Agreement(40, 0.8, 0.59, 0.9), Decision.REVIEW),
        (Mode.SIMPLE, Agreement(40, 0.8, 0.59, 0.9), Decision.APPROVE),
        (Mode.SIMPLE, Agreement(40, 0.59, 0.4, 0.9), Decision.REVIEW),
        (Mode.CONFIDENT, None, Decision.REVIEW),
    ],
)
def test_a_judge_that_agrees_too_little_with_people_cannot_approve(
    mode: Mode, agreement: Agreement | None, decision: Decision
) -> None:
    policy = Policy(mode=mode, minimum_agreement=0.6)
    judged = Judgement(96, 93, 98, decided=40, agreement=agreement)
    verdict = decide(policy, judged)
    assert verdict.decision is decision
    assert (decision is Decision.APPROVE) or "minimum" in verdict.reason
    assert decide(Policy(mode=mode), judged).decision is Decision.APPROVE
    bad = Judgement(20, 15, 25, decided=40, agreement=agreement)
    assert decide(policy, bad).decision is Decision.REJECT  # a low score needs no agreement to be refused


HIGH = Judgement(96, 93, 98, decided=40)


@pytest.mark.requirement("LA-5.1")
@pytest.mark.parametrize(
    ("mode", "rate", "decision"),
    [
        (Mode.CONFIDENT, Measured(0.9, 0.82, 0.95, 40), Decision.APPROVE),
        (Mode.CONFIDENT, Measured(0.9, 0.79, 0.95, 40), Decision.REVIEW),
        (Mode.SIMPLE, Measured(0.9, 0.79, 0.95, 40), Decision.APPROVE),
        (Mode.SIMPLE, Measured(0.79, 0.7, 0.95, 40), Decision.REVIEW),
        (Mode.SIMPLE, None, Decision.REVIEW),
    ],
)
def test_a_metric_below_the_policys_minimum_or_without_a_value_waits_for_a_human(
    mode: Mode, rate: Measured | None, decision: Decision
) -> None:
    policy = Policy(mode=mode, minimum_metrics={"pass_at_1": 0.8})
    measured = {"pass_at_1": rate} if rate else {"rouge_l": Measured(1, 1, 1, 40)}
    verdict = decide(policy, replace(HIGH, metrics=measured))
    assert verdict.decision is decision
    assert (decision is Decision.APPROVE) or "pass_at_1" in verdict.reason
    assert decide(Policy(mode=mode), HIGH).decision is Decision.APPROVE
    low = Judgement(20, 15, 25, decided=40)
    assert decide(policy, low).decision is Decision.REJECT


@pytest.mark.requirement("LA-3.4")
def test_answers_have_to_be_preferred_often_enough_to_those_of_the_version_that_is_replaced() -> None:
    policy = Policy(minimum_win_rate=0.45)
    equal = replace(HIGH, comparison=Comparison("tax-lora-v1", 40, 0.0, -2.0, 2.0))

    def verdict(low: float, against: str = "tax-lora-v1", replaces: str = "tax-lora-v1") -> Decision:
        preferred = Preferred(against, Measured(0.55, low, 0.7, 40))
        return decide(policy, replace(equal, preferred=preferred), replaces=replaces).decision

    assert verdict(0.45) is Decision.APPROVE
    assert verdict(0.44) is Decision.REVIEW
    assert verdict(0.45, against="tax-lora-v0") is Decision.REVIEW
    assert verdict(0.1, replaces="") is Decision.APPROVE  # a first version replaces none
    uncompared = decide(policy, equal, replaces="tax-lora-v1")
    assert uncompared.decision is Decision.REVIEW
    assert "not compared pair by pair with those of tax-lora-v1" in uncompared.reason


@pytest.mark.requirement("LA-5.1")
@pytest.mark.parametrize(
    ("score", "decision"),
    [
        (100, Decision.APPROVE),
        (85, Decision.APPROVE),
        (84.99, Decision.REVIEW),
        (70, Decision.REVIEW),
        (69.99, Decision.REJECT),
        (0, Decision.REJECT),
    ],
)
def test_the_simple_policy_approves_from_85_reviews_from_70_and_rejects_below(score: float, decision: Decision) -> None:
    assert decide(SIMPLE, Judgement(score, 0, 100)).decision is decision


@pytest.mark.parametrize(
    ("score", "low", "high", "decision"),
    [
        (90, 85, 95, Decision.APPROVE),
        (90, 84.9, 95, Decision.REVIEW),
        (60, 50, 69.9, Decision.REJECT),
        (60, 50, 70, Decision.REVIEW),
        (77, 71, 84, Decision.REVIEW),
    ],
)
def test_the_default_policy_wants_the_whole_interval_on_one_side(
    score: float, low: float, high: float, decision: Decision
) -> None:
    assert decide(Policy(), Judgement(score, low, high, decided=20)).decision is decision


def test_the_default_policy_approves_on_no_fewer_than_20_scored_samples() -> None:
    few = decide(Policy(), Judgement(99, 97, 100, decided=19))
    assert few.decision is Decision.REVIEW
    assert "19 scored samples, fewer than the policy's minimum of 20" in few.reason
    assert decide(Policy(), Judgement(99, 97, 100, decided=20)).decision is Decision.APPROVE
    assert decide(Policy(minimum_samples=10), Judgement(99, 97, 100, decided=10)).decision is Decision.APPROVE
    assert decide(Policy(), Judgement(20, 0, 60, decided=3)).decision is Decision.REJECT


def test_an_interval_without_a_width_is_no_interval() -> None:
    verdict = decide(Policy(), Judgement(100, 100, 100, decided=90))
    assert verdict.decision is Decision.REVIEW
    assert "an interval of zero width" in verdict.reason


@pytest.mark.requirement("LA-3.4")
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("judgement", "why"),
    [
        (good(fall=4), f"4.0 points worse than {OLD}"),
        (good(accuracy=2), f"worse than {OLD} in accuracy (by 2.0 of 10)"),
        (good(style=0.3, accuracy=2), "in accuracy (by 2.0 of 10), style (by 0.3 of 10)"),
    ],
)
def test_a_relevant_fall_of_the_score_or_of_a_criterion_blocks_in_every_mode(
    mode: Mode, judgement: Judgement, why: str
) -> None:
    verdict = decide(Policy(mode=mode), judgement, replaces=OLD)
    assert verdict.decision is Decision.REVIEW
    assert why in verdict.reason


@pytest.mark.parametrize(
    ("policy", "judgement"),
    [
        (Policy(), good()),
        (Policy(), good(fall=1.5)),
        (Policy(), good(accuracy=0.1)),
        (Policy(smallest_relevant_difference=5), good(fall=4, accuracy=0.4)),
        (Policy(blocking_criteria=("accuracy", "relevance")), good(style=3)),
        (Policy(blocking_criteria=()), good(accuracy=3)),
    ],
)
def test_a_fall_that_the_policy_does_not_name_or_that_is_too_small_does_not_block(
    policy: Policy, judgement: Judgement
) -> None:
    assert decide(policy, judgement, replaces=OLD).decision is Decision.APPROVE


@pytest.mark.parametrize(
    ("judgement", "why"),
    [
        (Judgement(96, 93, 98, decided=40), f"not compared with {OLD}"),
        (good(against="tax-law-lora-v0.9.0"), f"not compared with {OLD}"),
        (good(samples=19), f"compared with {OLD} on 19 samples"),
    ],
)
def test_a_replacement_has_to_be_compared_with_what_it_replaces_on_enough_samples(
    judgement: Judgement, why: str
) -> None:
    verdict = decide(Policy(), judgement, replaces=OLD)
    assert verdict.decision is Decision.REVIEW
    assert why in verdict.reason
    assert decide(SIMPLE, judgement, replaces=OLD).decision is Decision.APPROVE


@pytest.mark.requirement("LA-3.4")
@pytest.mark.parametrize(
    ("mode", "required", "decision"),
    [
        (Mode.CONFIDENT, None, Decision.REVIEW),
        (Mode.CONFIDENT, True, Decision.REVIEW),
        (Mode.CONFIDENT, False, Decision.APPROVE),
        (Mode.SIMPLE, None, Decision.APPROVE),
        (Mode.SIMPLE, True, Decision.REVIEW),
        (Mode.SIMPLE, False, Decision.APPROVE),
    ],
)
def test_the_policy_has_whether_a_missing_comparison_blocks_and_the_reason_names_it_either_way(
    mode: Mode, required: bool | None, decision: Decision
) -> None:
    unlike = Judgement(96, 93, 98, decided=40, not_compared="golden data set g@2.0.0, before g@1.0.0")
    verdict = decide(Policy(mode=mode, comparison_required=required), unlike, replaces=OLD)
    assert verdict.decision is decision
    assert f"not compared with {OLD}" in verdict.reason
    assert "golden data set g@2.0.0, before g@1.0.0" in verdict.reason


@given(policies(), judgements(), st.none() | points)
def test_nothing_below_the_reject_line_is_approved_and_nothing_at_it_rejected(
    policy: Policy, judgement: Judgement, requested: float | None
) -> None:
    decision = decide(policy, judgement, requested).decision
    if judgement.score < policy.reject_below:
        assert decision is not Decision.APPROVE
    else:
        assert decision is not Decision.REJECT


@given(policies(), judgements(), st.none() | points)
def test_a_regression_is_never_approved_without_a_human(
    policy: Policy, judgement: Judgement, requested: float | None
) -> None:
    decision = decide(policy, judgement, requested).decision
    assert not (judgement.regression and decision is Decision.APPROVE)


@given(judgements(), st.none() | points)
def test_a_confident_policy_never_decides_where_the_simple_one_asks_a_human(
    judgement: Judgement, requested: float | None
) -> None:
    confident = decide(Policy(mode=Mode.CONFIDENT), judgement, requested).decision
    assert confident in {Decision.REVIEW, decide(SIMPLE, judgement, requested).decision}


@pytest.mark.parametrize(
    ("requested", "score", "decision"),
    [
        (95, 90, Decision.REVIEW),
        (95, 95, Decision.APPROVE),
        (80, 80, Decision.APPROVE),
        (80, 79.9, Decision.REVIEW),
        (0, 69.9, Decision.REJECT),
    ],
)
def test_a_requests_own_threshold_moves_the_approve_line_but_never_below_the_reject_line(
    requested: float, score: float, decision: Decision
) -> None:
    assert decide(SIMPLE, Judgement(score, 0, 100), requested).decision is decision


def test_a_domain_can_forbid_thresholds_below_its_own() -> None:
    strict = Policy(allow_lower_threshold=False)
    assert strict.approve_line(80) == 85
    assert strict.approve_line(95) == 95


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"approve_at": 101}, "approve_at"),
        ({"approve_at": float("nan")}, "approve_at"),
        ({"reject_below": -1}, "reject_below"),
        ({"approve_at": 60, "reject_below": 70}, "reject_below"),
        ({"minimum_samples": 0}, "minimum_samples"),
        ({"minimum_agreement": 1.1}, "minimum_agreement"),
        ({"minimum_metrics": {"rouge_l": 1.1}}, "minimum_metrics.rouge_l"),
        ({"minimum_win_rate": -0.1}, "minimum_win_rate"),
        ({"smallest_relevant_difference": -1}, "smallest_relevant_difference"),
        ({"blocking_criteria": ("accuracy", "humour")}, "blocking_criteria"),
    ],
)
def test_a_policy_that_contradicts_itself_names_the_setting(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPolicy) as refused:
        Policy(**settings)
    assert refused.value.field == field
