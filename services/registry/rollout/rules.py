"""How a domain's approved versions take over: the part of its policy that rules rollouts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from fleet_events.v1 import DeliveryMode, RolloutMetric

DAY = 24 * 3600.0
TOLERATED: Mapping[RolloutMetric, float] = {
    RolloutMetric.ERROR_RATE: 1.0,
    RolloutMetric.REFUSAL_RATE: 1.0,
    RolloutMetric.LATENCY: 1.0,
    RolloutMetric.RATING: 4.0,
    RolloutMetric.PREFERENCE: 0.5,
    RolloutMetric.JUDGE: 100.0,
}
"""Metric → the largest tolerance that leaves something to test, in the metric's unit."""


class InvalidRules(ValueError):
    """Rules that contradict each other. `field` names the setting."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = f"delivery.{field}"


def _tested() -> dict[RolloutMetric, float]:
    return {RolloutMetric.ERROR_RATE: 0.0, RolloutMetric.REFUSAL_RATE: 0.0, RolloutMetric.RATING: 0.0}


@dataclass(frozen=True, slots=True)
class Delivery:
    """A domain's rules for rollouts.

    `steps` are parts of the callers, growing, of a canary; behind the last one (or at 1) the candidate is activated.
    `share` is the part of the callers of `ab` and `shadow`. A step lasts until both versions have `minimum_requests`
    outcomes in it and `minimum_seconds` have passed; one that is not decided after `longest_seconds` ends the rollout.
    `metrics` are tested, each with the difference to the worse that is tolerated, in the metric's unit. An answer is
    slow above `slow_ms`. With the metric `judge` the judge scores `judge_share` of the rollout's recorded answers, and
    a step lasts until both versions have `minimum_scores` too. `false_rollbacks` is the part of the rollouts of equal
    versions that may be rolled back, over all metrics, steps and looks.
    """

    mode: DeliveryMode = DeliveryMode.AT_ONCE
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 1.0)
    share: float = 0.5
    minimum_requests: int = 200
    minimum_seconds: float = 3600.0
    longest_seconds: float = 14 * DAY
    metrics: Mapping[RolloutMetric, float] = field(default_factory=_tested)
    slow_ms: float = 10_000.0
    judge_share: float = 0.1
    minimum_scores: int = 20
    false_rollbacks: float = 0.05

    def __post_init__(self) -> None:
        parts = (0.0, *self.steps, 1.0)
        if not self.shares_of(DeliveryMode.CANARY) or not all(low < high for low, high in pairwise(parts[:-1])):
            raise InvalidRules(
                "steps", f"steps is {list(self.steps)}, expected growing parts of 1, one below 1 at least"
            )
        if self.steps[-1] > 1:
            raise InvalidRules("steps", f"steps ends with {self.steps[-1]:g}, expected at most 1")
        if not 0 < self.share < 1:
            raise InvalidRules("share", f"share is {self.share}, expected above 0 and below 1")
        if self.minimum_requests < 1:
            raise InvalidRules("minimum_requests", f"minimum_requests is {self.minimum_requests}, expected 1 or more")
        if not 0 <= self.minimum_seconds < self.longest_seconds:
            raise InvalidRules("minimum_seconds", "minimum_seconds must be 0 or more and below longest_seconds")
        if not self.metrics:
            raise InvalidRules("metrics", "metrics is empty: name at least one, for example error_rate")
        for name, tolerance in self.metrics.items():
            if not 0 <= tolerance < TOLERATED[name]:
                most = TOLERATED[name]
                raise InvalidRules("metrics", f"{name} tolerates {tolerance}, expected 0 or more and below {most:g}")
        if not self.slow_ms > 0:
            raise InvalidRules("slow_ms", f"slow_ms is {self.slow_ms}, expected above 0")
        self._check_judging()
        if not 0 < self.false_rollbacks <= 0.5:
            raise InvalidRules("false_rollbacks", f"false_rollbacks is {self.false_rollbacks}, expected up to 0.5")

    def _check_judging(self) -> None:
        if not 0 < self.judge_share <= 1:
            raise InvalidRules("judge_share", f"judge_share is {self.judge_share}, expected above 0 and at most 1")
        if self.minimum_scores < 1:
            raise InvalidRules("minimum_scores", f"minimum_scores is {self.minimum_scores}, expected 1 or more")
        if self.is_judged and self.mode is DeliveryMode.SHADOW:
            raise InvalidRules(
                "metrics",
                "judge takes recorded answers, and a shadow candidate's never are: name another mode or metric",
            )

    @property
    def is_judged(self) -> bool:
        """Whether the judge's scores of live answers are tested."""
        return RolloutMetric.JUDGE in self.metrics

    def shares_of(self, mode: DeliveryMode) -> tuple[float, ...]:
        """The part of the callers that has the candidate, step by step."""
        if mode is DeliveryMode.CANARY:
            return tuple(part for part in self.steps if part < 1)
        return (self.share,)
