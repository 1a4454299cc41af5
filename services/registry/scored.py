"""A score that the evaluator published, as the registry's own values."""

from __future__ import annotations

from datetime import datetime

from fleet_events import v1
from services.registry.family import Evaluation, Preference
from services.registry.policy import Agreement, Comparison, Judgement
from services.registry.required import Measured, Preferred


def evaluation_of(event: v1.EvaluationScored, at: datetime) -> Evaluation:
    """The score that an event carries, given at `at`."""
    metrics = {one.name: Measured(one.value, one.ci_low, one.ci_high, one.samples) for one in event.metrics}
    return Evaluation(
        evaluation_id=event.evaluation_id,
        scored_at=at,
        artifact_sha256=event.artifact_sha256,
        golden_dataset_id=event.golden_dataset_id,
        golden_sha256=event.golden_sha256,
        judge=event.judge,
        judgement=Judgement(
            event.score,
            event.ci_low,
            event.ci_high,
            event.regression,
            event.samples if event.decided is None else event.decided,
            _comparison(event.comparison) if event.comparison else None,
            _agreement(event.agreement) if event.agreement else None,
            event.not_compared,
            metrics,
            _preferred(event.preference) if event.preference else None,
        ),
        pass_rate=event.pass_rate,
        pass_threshold=event.pass_threshold,
        samples=event.samples,
        passed=event.passed,
        criteria=dict(event.criteria),
        confidence=event.confidence,
        report=event.report,
        submission=event.submission,
        cut_answers=event.cut_answers,
        golden_version=event.golden_version,
        max_tokens=event.max_tokens,
        scores=event.scores,
        metrics=metrics,
        preference=_preference(event.preference) if event.preference else None,
    )


def _comparison(event: v1.Comparison) -> Comparison:
    return Comparison(
        event.compared_with,
        event.samples,
        event.difference,
        event.ci_low,
        event.ci_high,
        {change.criterion: change.difference for change in event.criteria if change.fell},
    )


def _agreement(event: v1.Agreement) -> Agreement:
    return Agreement(event.answers, event.alpha, event.ci_low, event.ci_high)


def _preference(event: v1.Preference) -> Preference:
    return Preference(event.compared_with, event.wins, event.losses, event.ties)


def _preferred(event: v1.Preference) -> Preferred:
    return Preferred(event.compared_with, Measured(event.win_rate, event.ci_low, event.ci_high, event.samples))
