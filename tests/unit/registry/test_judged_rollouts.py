"""A rollout whose candidate the judge scores."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fleet_events import v1
from fleet_events.v1 import DeliveryMode, RolloutArm, RolloutMetric
from services.registry.policy import InvalidPolicy, Policy
from services.registry.rollout import verdict
from services.registry.rollout.rules import InvalidRules
from services.registry.rollout.verdict import Counted, Decision
from tests.unit.registry.builders import START
from tests.unit.registry.test_rollouts import CANARY, begun, decided, running

JUDGED = replace(CANARY, metrics={RolloutMetric.JUDGE: 0.0}, minimum_scores=20)
RECORDED = Policy(allow_approval_without_evaluation=True, delivery=JUDGED, record_answers=v1.RecordAnswers.ALL)


def scored(arm: RolloutArm, *scores: float) -> Counted:
    """The judge's scores of one version, of a version whose requests were all answered."""
    outcomes: dict[float, int] = {}
    for one in map(verdict.score_outcome, scores):
        outcomes[one] = outcomes.get(one, 0) + 1
    return {(RolloutMetric.JUDGE, arm): outcomes, (RolloutMetric.ERROR_RATE, arm): {0.0: 500}}


@pytest.mark.requirement("AM-3.1")
def test_a_candidate_that_the_judge_scores_lower_is_rolled_back_on_that_alone() -> None:
    rollout = running(begun(RECORDED).family)
    high = scored(RolloutArm.INCUMBENT, *[88.57, 91.4, 90] * 20)
    low = scored(RolloutArm.CANDIDATE, *[31.43, 42.9, 30] * 10)
    assert decided(rollout, high | low, seconds=1) is Decision.ROLL_BACK
    [found] = verdict.evidence_of(rollout, high | low)
    assert (found.metric, found.candidate_outcomes, found.incumbent_outcomes) == (RolloutMetric.JUDGE, 30, 60)
    assert found.candidate == pytest.approx(34.7, abs=0.1)
    assert found.incumbent == pytest.approx(90, abs=0.1)
    assert found.ci_high < 0
    assert found.log_evidence >= found.line


def test_a_step_waits_for_the_judges_scores_of_both_versions() -> None:
    rollout = running(begun(RECORDED).family)
    enough, few = scored(RolloutArm.INCUMBENT, *[90] * 20), scored(RolloutArm.CANDIDATE, *[90] * 19)
    found = verdict.judge(rollout, enough | few, START + timedelta(hours=1))
    assert found.decision is Decision.HOLD
    assert found.reason == ("19 judged answers of the candidate and 20 of the incumbent; step 1 of 3 takes 20 of each")
    assert decided(rollout, enough | scored(RolloutArm.CANDIDATE, *[90] * 20)) is Decision.ADVANCE


def test_the_judges_share_is_told_only_where_its_scores_are_tested() -> None:
    assert running(begun().family).card.judge_share == 0
    assert running(begun(RECORDED).family).card.judge_share == 0.1


@pytest.mark.parametrize("changes", [{"judge_share": 0.0}, {"judge_share": 1.1}, {"minimum_scores": 0}])
def test_a_judges_share_and_scores_have_bounds(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidRules, match=next(iter(changes))):
        replace(JUDGED, **changes)


def test_a_judge_needs_answers_that_are_recorded() -> None:
    with pytest.raises(InvalidRules, match="shadow candidate's never are"):
        replace(JUDGED, mode=DeliveryMode.SHADOW)
    with pytest.raises(InvalidPolicy, match="record_answers is none") as refused:
        replace(RECORDED, record_answers=v1.RecordAnswers.NONE)
    assert refused.value.field == "delivery.metrics"
