"""A rollout: a candidate beside the active version of its family. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fleet_events import v1
from services.registry.rollout.rules import Delivery


class State(StrEnum):
    """Where a rollout stands; what is not running is over for good."""

    RUNNING = "running"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One candidate's way to take over from one incumbent, under the rules with which it began."""

    rollout_id: str
    mode: v1.DeliveryMode
    candidate_id: str
    incumbent_id: str
    rules: Delivery
    started_at: datetime
    step_at: datetime
    """When its step began."""
    step: int = 0
    paused: bool = False
    state: State = State.RUNNING
    ended_at: datetime | None = None
    reason: str = ""
    """Why it is where it is."""

    @property
    def steps(self) -> int:
        """How many steps it has before the candidate is activated."""
        return len(self.rules.shares_of(self.mode))

    @property
    def share(self) -> float:
        """Part of the callers whose requests the candidate answers at this step."""
        return self.rules.shares_of(self.mode)[self.step]

    @property
    def last_step(self) -> bool:
        return self.step + 1 == self.steps

    @property
    def card(self) -> v1.Rollout:
        """What other services need to know of it."""
        return v1.Rollout(
            rollout_id=self.rollout_id,
            mode=self.mode,
            candidate_id=self.candidate_id,
            incumbent_id=self.incumbent_id,
            step=self.step,
            share=self.share,
            judge_share=self.rules.judge_share if self.rules.is_judged else 0.0,
        )
