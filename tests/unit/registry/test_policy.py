"""The verdict of a policy on a score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.policy import Decision, InvalidPolicy, Judgement, Mode, Policy, decide

points = st.floats(0, 100)


@st.composite
def judgements(draw: st.DrawFn) -> Judgement:
    low, score, high = sorted(draw(st.tuples(points, points, points)))
    return Judgement(score, low, high, draw(st.booleans()))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    reject_below, approve_at = sorted(draw(st.tuples(points, points)))
    return Policy(draw(st.sampled_from(Mode)), approve_at, reject_below, allow_lower_threshold=draw(st.booleans()))


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
def test_the_default_policy_approves_from_85_reviews_from_70_and_rejects_below(
    score: float, decision: Decision
) -> None:
    assert decide(Policy(), Judgement(score, 0, 100)).decision is decision


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
def test_a_confident_policy_wants_the_whole_interval_on_one_side(
    score: float, low: float, high: float, decision: Decision
) -> None:
    assert decide(Policy(mode=Mode.CONFIDENT), Judgement(score, low, high)).decision is decision


@given(policies(), judgements(), st.none() | points)
def test_nothing_below_the_reject_line_is_approved_and_nothing_at_it_rejected(
    policy: Policy, judgement: Judgement, asked: float | None
) -> None:
    decision = decide(policy, judgement, asked).decision
    if judgement.score < policy.reject_below:
        assert decision is not Decision.APPROVE
    else:
        assert decision is not Decision.REJECT


@given(policies(), judgements(), st.none() | points)
def test_a_regression_is_never_approved_without_a_human(
    policy: Policy, judgement: Judgement, asked: float | None
) -> None:
    decision = decide(policy, judgement, asked).decision
    assert not (judgement.regression and decision is Decision.APPROVE)


@given(judgements(), st.none() | points)
def test_a_confident_policy_never_decides_where_the_simple_one_asks_a_human(
    judgement: Judgement, asked: float | None
) -> None:
    confident = decide(Policy(mode=Mode.CONFIDENT), judgement, asked).decision
    assert confident in {Decision.REVIEW, decide(Policy(), judgement, asked).decision}


@pytest.mark.parametrize(
    ("asked", "score", "decision"),
    [
        (95, 90, Decision.REVIEW),
        (95, 95, Decision.APPROVE),
        (80, 80, Decision.APPROVE),
        (80, 79.9, Decision.REVIEW),
        (0, 69.9, Decision.REJECT),
    ],
)
def test_a_requests_own_threshold_moves_the_approve_line_but_never_below_the_reject_line(
    asked: float, score: float, decision: Decision
) -> None:
    assert decide(Policy(), Judgement(score, 0, 100), asked).decision is decision


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
    ],
)
def test_a_policy_that_contradicts_itself_names_the_setting(settings: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidPolicy) as refused:
        Policy(**settings)  # type: ignore[arg-type]
    assert refused.value.field == field
