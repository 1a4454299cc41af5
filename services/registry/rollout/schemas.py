"""What the registry takes and answers about rollouts over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from fleet_events.v1 import DeliveryMode, RolloutMetric
from services.registry.rollout import verdict
from services.registry.rollout.rules import Delivery
from services.registry.rollout.state import Rollout, State
from services.registry.rollout.verdict import Counted
from services.registry.view import View

_DEFAULT = Delivery()


class DeliveryBody(BaseModel):
    """A domain's rules for rollouts."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    mode: DeliveryMode = _DEFAULT.mode
    steps: tuple[float, ...] = Field(
        default=_DEFAULT.steps, max_length=20, description="Parts of the callers, growing, that a canary gets"
    )
    share: float = Field(default=_DEFAULT.share, description="Part of the callers that `ab` and `shadow` take")
    minimum_requests: int = Field(
        default=_DEFAULT.minimum_requests, le=10_000_000, description="Outcomes of each version that a step takes"
    )
    minimum_seconds: float = Field(default=_DEFAULT.minimum_seconds, allow_inf_nan=False)
    longest_seconds: float = Field(
        default=_DEFAULT.longest_seconds,
        allow_inf_nan=False,
        description="After so long an undecided step ends the rollout: the incumbent stays",
    )
    metrics: dict[RolloutMetric, float] = Field(
        default_factory=lambda: dict(_DEFAULT.metrics),
        description="What is tested, with the difference to the worse that is tolerated",
    )
    slow_ms: float = Field(default=_DEFAULT.slow_ms, allow_inf_nan=False, description="`latency`: slow is above this")
    judge_share: float = Field(
        default=_DEFAULT.judge_share, description="`judge`: part of the rollout's recorded answers that is scored"
    )
    minimum_scores: int = Field(
        default=_DEFAULT.minimum_scores, le=10_000_000, description="`judge`: scores of each version that a step takes"
    )
    false_rollbacks: float = Field(
        default=_DEFAULT.false_rollbacks,
        description="Part of the rollouts of equal versions that may be rolled back, for any number of looks",
    )

    def rules(self) -> Delivery:
        """The domain's value; raises InvalidRules."""
        return Delivery(**{name: getattr(self, name) for name in DeliveryBody.model_fields})


class Begin(BaseModel):
    """A rollout to start."""

    model_config = ConfigDict(extra="forbid")

    candidate: str = Field(
        default="", max_length=300, description="Id of an approved version; empty: the highest one above the active"
    )
    mode: DeliveryMode | None = Field(default=None, description="Mode; null takes the policy's")
    reason: str = Field(default="", max_length=2000)


class RolloutView(View):
    """A rollout."""

    rollout_id: str
    mode: DeliveryMode
    candidate_id: str
    incumbent_id: str
    state: State
    step: int = Field(description="Number of the step, from 0")
    steps: int
    share: float = Field(description="Part of the callers that the candidate answers at this step; shadow: beside")
    paused: bool
    started_at: datetime
    step_at: datetime
    ended_at: datetime | None
    reason: str
    rules: DeliveryBody


class EvidenceView(View):
    """What a step found for one metric, in the metric's unit."""

    metric: RolloutMetric
    candidate_outcomes: int
    incumbent_outcomes: int
    candidate: float | None = Field(description="Mean of the candidate's outcomes")
    incumbent: float | None
    ci_low: float = Field(description="Interval of candidate minus incumbent that holds at every look")
    ci_high: float
    log_evidence: float = Field(description="Logarithm of the evidence that the candidate is worse")
    line: float = Field(description="From which on it is rolled back")
    test: str


class RolloutDetails(RolloutView):
    """A rollout with what its step found so far."""

    evidence: list[EvidenceView] = Field(description="One line a metric, for the step that it is or ended at")
    next: str = Field(description="What it waits for, or why it ended")

    @classmethod
    def of(cls, rollout: Rollout, counted: Counted, now: datetime) -> Self:
        waits = verdict.judge(rollout, counted, now).reason if rollout.state is State.RUNNING else rollout.reason
        evidence = [EvidenceView.model_validate(one) for one in verdict.evidence_of(rollout, counted)]
        return cls(**RolloutView.model_validate(rollout).model_dump(), evidence=evidence, next=waits)


class FamilyRollouts(View):
    """The newest rollout of a family and those before it, newest first."""

    family: str
    rollout: RolloutDetails | None
    earlier: list[RolloutView]

    @classmethod
    def of(cls, family: str, newest: RolloutDetails | None, earlier: Sequence[Rollout]) -> Self:
        return cls(family=family, rollout=newest, earlier=[RolloutView.model_validate(one) for one in earlier])
