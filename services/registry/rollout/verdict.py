"""What the outcomes of a rollout's step lead to: advance, promote, hold or roll back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import isnan, log

from fleet_events import v1
from fleet_events.v1 import DeliveryMode, RolloutArm, RolloutMetric
from services.registry.rollout.state import Rollout

Outcomes = Mapping[float, int]
"""As in `sequential_test`, which brings numpy and is imported where a rollout is decided, not with the service."""
Counted = Mapping[tuple[RolloutMetric, RolloutArm], Outcomes]
"""How often each outcome occurred at one step, by metric and version; 1 is the worst outcome, 0 the best."""

BEST: Mapping[RolloutMetric, float] = {RolloutMetric.RATING: 5.0, RolloutMetric.JUDGE: 100.0}
"""Metrics of which more is better, with the value whose outcome is 0."""
WIDTH: Mapping[RolloutMetric, float] = {RolloutMetric.RATING: 4.0, RolloutMetric.JUDGE: 100.0}
"""Of their scales, 1 to 5 and 0 to 100."""
MOST_EVIDENCE = 1e6


class Decision(StrEnum):
    """What follows."""

    HOLD = "hold"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and the sentence that explains it."""

    decision: Decision
    reason: str


def rating_outcome(rating: int) -> float:
    """A rating of 1 to 5 as an outcome: 5 is 0, 1 is 1."""
    return _outcome(RolloutMetric.RATING, rating)


def score_outcome(score: float) -> float:
    """A judge's score of 0 to 100 as an outcome in hundredths, which are few enough to be counted: 100 is 0, 0 is 1."""
    return round(_outcome(RolloutMetric.JUDGE, score), 2)


def _outcome(metric: RolloutMetric, value: float) -> float:
    return (BEST[metric] - value) / WIDTH[metric]


def line_of(rollout: Rollout) -> float:
    """Logarithm of the evidence that decides.

    The permitted part of false rollbacks is divided evenly between metrics and steps: each step is tested on its own
    outcomes, because what was counted at another share came from other callers at another time.
    """
    return log(len(rollout.rules.metrics) * rollout.steps / rollout.rules.false_rollbacks)


def judge(rollout: Rollout, counted: Counted, now: datetime) -> Verdict:
    """Hold the outcomes of the rollout's step against its rules; may be called after every outcome."""
    return _shown(rollout, counted) or _waits(rollout, counted, now) or _goes_on(rollout, counted)


def _shown(rollout: Rollout, counted: Counted) -> Verdict | None:
    """What the test decides, however early."""
    worst, line = _worst(rollout, counted), line_of(rollout)
    if log_evidence(rollout, worst, counted) >= line:
        return Verdict(Decision.ROLL_BACK, f"{worst} of {rollout.candidate_id} is worse: {_told(worst, counted)}")
    if rollout.mode is DeliveryMode.AB and not rollout.paused and (won := _won(rollout, counted, line)):
        return Verdict(Decision.PROMOTE, f"{won} of {rollout.candidate_id} is better: {_told(won, counted)}")
    return None


def _waits(rollout: Rollout, counted: Counted, now: datetime) -> Verdict | None:
    """What keeps the step from ending, or ends the rollout undecided."""
    rules, number = rollout.rules, f"step {rollout.step + 1} of {rollout.steps}"
    if rollout.paused:
        return Verdict(Decision.HOLD, f"paused at {number}")
    seconds = (now - rollout.step_at).total_seconds()
    if seconds >= rules.longest_seconds:
        undecided = f"{number} was not decided within {rules.longest_seconds:g} s"
        return Verdict(Decision.ROLL_BACK, f"{undecided}: {rollout.incumbent_id} stays")
    if lacking := _lacking(rollout, counted, seconds):
        return Verdict(Decision.HOLD, lacking)
    if rollout.mode is DeliveryMode.AB:
        return Verdict(Decision.HOLD, "no difference is shown yet")
    worst = _worst(rollout, counted)
    if log_evidence(rollout, worst, counted) > 0:
        return Verdict(Decision.HOLD, f"{worst} leans against the candidate: {_told(worst, counted)}")
    return None


def _lacking(rollout: Rollout, counted: Counted, seconds: float) -> str:
    """What the step has and still takes; empty where it has enough."""
    rules, number = rollout.rules, f"step {rollout.step + 1} of {rollout.steps}"
    candidate, incumbent = (_answers(arm, counted) for arm in (RolloutArm.CANDIDATE, RolloutArm.INCUMBENT))
    if min(candidate, incumbent) < rules.minimum_requests or seconds < rules.minimum_seconds:
        have = f"{candidate} requests of the candidate and {incumbent} of the incumbent in {seconds:.0f} s"
        return f"{have}; {number} takes {rules.minimum_requests} of each and {rules.minimum_seconds:g} s"
    candidate, incumbent = (sum(one.values()) for one in _of(RolloutMetric.JUDGE, counted))
    if rules.is_judged and min(candidate, incumbent) < rules.minimum_scores:
        have = f"{candidate} judged answers of the candidate and {incumbent} of the incumbent"
        return f"{have}; {number} takes {rules.minimum_scores} of each"
    return ""


def _goes_on(rollout: Rollout, counted: Counted) -> Verdict:
    found = f"{_answers(RolloutArm.CANDIDATE, counted)} requests show no metric worse"
    if rollout.last_step:
        return Verdict(Decision.PROMOTE, f"{found} at the last step")
    return Verdict(Decision.ADVANCE, f"{found} at step {rollout.step + 1} of {rollout.steps}")


def _worst(rollout: Rollout, counted: Counted) -> RolloutMetric:
    return max(rollout.rules.metrics, key=lambda name: log_evidence(rollout, name, counted))


def _answers(arm: RolloutArm, counted: Counted) -> int:
    return sum(counted.get((RolloutMetric.ERROR_RATE, arm), {}).values())


def log_evidence(rollout: Rollout, metric: RolloutMetric, counted: Counted) -> float:
    """Logarithm of the evidence that the candidate is worse in a metric by more than is tolerated."""
    from services.registry.rollout import sequential_test as test

    candidate, incumbent = _of(metric, counted)
    tolerance = _scaled(metric, rollout.rules.metrics.get(metric, 0.0))
    if metric is RolloutMetric.PREFERENCE:
        return test.log_evidence_above(candidate, 0.5 + tolerance)
    return test.log_evidence_worse(candidate, incumbent, tolerance)


def evidence_of(rollout: Rollout, counted: Counted) -> tuple[v1.Evidence, ...]:
    """What the step found so far, for every metric that its rules name."""
    return tuple(_evidence(rollout, name, counted) for name in rollout.rules.metrics)


def _evidence(rollout: Rollout, metric: RolloutMetric, counted: Counted) -> v1.Evidence:
    from services.registry.rollout import sequential_test as test

    candidate, incumbent = _of(metric, counted)
    level = rollout.rules.false_rollbacks
    if metric is RolloutMetric.PREFERENCE:
        low, high = (end - 0.5 for end in test.interval_of_mean(candidate, level))
    else:
        low, high = test.interval(candidate, incumbent, level)
    if metric in BEST:  # a worse outcome is a lower value
        low, high = -high * WIDTH[metric], -low * WIDTH[metric]
    return v1.Evidence(
        metric=metric,
        candidate_outcomes=sum(candidate.values()),
        incumbent_outcomes=sum(incumbent.values()),
        candidate=_in_unit(metric, test.mean(candidate)),
        incumbent=0.5 if metric is RolloutMetric.PREFERENCE else _in_unit(metric, test.mean(incumbent)),
        ci_low=low,
        ci_high=high,
        log_evidence=min(log_evidence(rollout, metric, counted), MOST_EVIDENCE),
        line=line_of(rollout),
        test=test.NAME,
    )


def _won(rollout: Rollout, counted: Counted, line: float) -> RolloutMetric | None:
    """A metric in which the candidate is shown to be better, if any."""
    from services.registry.rollout import sequential_test as test

    for metric in rollout.rules.metrics:
        candidate, incumbent = _of(metric, counted)
        if metric is RolloutMetric.PREFERENCE:
            better = test.log_evidence_above({1 - one: times for one, times in candidate.items()}, 0.5)
        else:
            better = test.log_evidence_worse(incumbent, candidate)
        if better >= line:
            return metric
    return None


def _of(metric: RolloutMetric, counted: Counted) -> tuple[Outcomes, Outcomes]:
    return counted.get((metric, RolloutArm.CANDIDATE), {}), counted.get((metric, RolloutArm.INCUMBENT), {})


def _scaled(metric: RolloutMetric, difference: float) -> float:
    return difference / WIDTH.get(metric, 1.0)


def _in_unit(metric: RolloutMetric, outcome: float) -> float | None:
    if isnan(outcome):
        return None
    return BEST[metric] - WIDTH[metric] * outcome if metric in BEST else outcome


def _told(metric: RolloutMetric, counted: Counted) -> str:
    from services.registry.rollout import sequential_test as test

    candidate, incumbent = _of(metric, counted)
    shown = f"{_in_unit(metric, test.mean(candidate)):.3f} of {sum(candidate.values())}"
    if metric is RolloutMetric.PREFERENCE:
        return f"{shown} comparisons lost"
    return f"{shown} against {_in_unit(metric, test.mean(incumbent)):.3f} of {sum(incumbent.values())}"
