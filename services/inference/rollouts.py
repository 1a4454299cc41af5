"""Which version of a family answers a request while a rollout runs: a sticky split, alike on every replica. Pure."""

from dataclasses import dataclass
from hashlib import sha256

from fleet_events.v1 import (
    Adapter,
    CanaryAdvanced,
    CanaryRolledBack,
    CanaryStarted,
    DeliveryMode,
    Rollout,
    RolloutArm,
    RolloutPart,
)

RolloutEvent = CanaryStarted | CanaryAdvanced | CanaryRolledBack
_PLACES = 1 << 64


@dataclass(frozen=True, slots=True)
class FamilyRollout:
    """The newest that is known of a family's rollouts: the event of the highest revision, in any order."""

    revision: int
    rollout: Rollout
    running: bool

    @classmethod
    def of(cls, event: RolloutEvent) -> "FamilyRollout":
        return cls(event.revision, event.rollout, not isinstance(event, CanaryRolledBack))

    @property
    def order(self) -> tuple[int, bool, str]:
        """What decides between two; the content decides between two of one revision, so that the order cannot."""
        return self.revision, not self.running, self.rollout.model_dump_json()


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who answers a request, and its part in a rollout, if it has one.

    `beside`: a candidate that is to answer too, never shown. `instead`: the incumbent, for a request that was given
    to the candidate.
    """

    adapter: Adapter
    part: RolloutPart | None = None
    beside: Adapter | None = None
    instead: str | None = None


def place(family: str, rollout_id: str, caller: str) -> float:
    """Where a caller stands in a rollout, from 0 to 1: the same at each of its steps and on every replica.

    The candidate has the callers below its share, so a step that widens the share only adds callers.
    """
    digest = sha256("\0".join((family, rollout_id, caller)).encode()).digest()
    return int.from_bytes(digest[:8]) / _PLACES


def assign(incumbent: Adapter, candidate: Adapter, rollout: Rollout, caller: str) -> Assignment:
    """Who answers this caller. `incumbent` and `candidate` are the two of the rollout."""

    def part(arm: RolloutArm) -> RolloutPart:
        return RolloutPart(rollout_id=rollout.rollout_id, step=rollout.step, arm=arm, judge_share=rollout.judge_share)

    within = place(incumbent.family, rollout.rollout_id, caller) < rollout.share
    if rollout.mode is DeliveryMode.SHADOW:
        # Both versions are compared on the same requests: those of other callers have no part.
        return Assignment(incumbent, part(RolloutArm.INCUMBENT), candidate) if within else Assignment(incumbent)
    if within:
        return Assignment(candidate, part(RolloutArm.CANDIDATE), instead=incumbent.adapter_id)
    return Assignment(incumbent, part(RolloutArm.INCUMBENT))
