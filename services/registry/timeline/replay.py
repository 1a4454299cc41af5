"""The state of a family at a moment, from its audit trail. Pure.

The trail is in the order in which its entries were committed. An entry takes effect at its own time, or at that of the
entry before it where that is later: two hosts whose clocks differ leave one order, the one that was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.registry.family import Evaluation, Status
from services.registry.store.listing import Trail

_DECISIONS = ("approved", "rejected")
_REVIEW = "review_requested"
_STATES = frozenset(one.value for one in Status)


@dataclass(frozen=True, slots=True)
class VersionAt:
    """A version as it stood. `decision` is the newest entry about whether it may serve, `activation` the one since
    which it serves, `replaces` the version that stopped for it."""

    adapter_id: str
    status: Status = Status.PENDING_REVIEW
    active: bool = False
    decision: Trail | None = None
    activation: Trail | None = None
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision was made on. `how`: the trail recorded it, or it is the newest score that there was (trails of
    releases that recorded none), or there was none."""

    how: str
    evaluation: Evaluation | None = None


def in_effect(trail: Sequence[Trail], at: datetime) -> int:
    """How many entries of the trail were in effect."""
    latest: datetime | None = None
    for number, entry in enumerate(trail):
        latest = entry.at if latest is None else max(latest, entry.at)
        if latest > at:
            return number
    return len(trail)


def state_at(trail: Sequence[Trail], at: datetime) -> dict[str, VersionAt]:
    """Every version that was registered by then, by id, in the order of registration."""
    found: dict[str, VersionAt] = {}
    before: Trail | None = None
    for entry in trail[: in_effect(trail, at)]:
        held = found.get(entry.subject, VersionAt(entry.subject))
        found[entry.subject] = _next(held, entry, before)
        before = entry
    return found


def rollout_at(trail: Sequence[Trail], at: datetime) -> dict[str, object] | None:
    """The rollout that ran, as the trail has it, with its candidate: beside the active version it answered too."""
    told = [entry for entry in trail[: in_effect(trail, at)] if "rollout_id" in entry.after]
    if not told or told[-1].after.get("state") != "running":
        return None
    return {"candidate": told[-1].subject} | told[-1].after


def policy_at(trail: Sequence[Trail], at: datetime) -> Trail | None:
    """The entry of a policy's trail that was in effect; None where the default applied."""
    number = in_effect(trail, at)
    return trail[number - 1] if number else None


def evidence_of(decision: Trail, evaluations: Sequence[Evaluation]) -> Evidence:
    """The score that a decision was made on; `evaluations` are those of its version, oldest first."""
    named = decision.after.get("evaluation_id")
    if named:
        return Evidence("recorded", next((one for one in evaluations if one.evaluation_id == named), None))
    if "policy" in decision.after or decision.after.get("without_evaluation"):
        return Evidence("none")
    known = [one for one in evaluations if one.scored_at <= decision.at]
    return Evidence("inferred", known[-1]) if known else Evidence("none")


def _next(held: VersionAt, entry: Trail, before: Trail | None) -> VersionAt:
    after = held
    status, active = entry.after.get("status"), entry.after.get("active")
    if isinstance(active, bool) and isinstance(status, str) and status in _STATES:  # entries of metrics name none
        after = replace(held, status=Status(status), active=active)
    undecided = held.decision is None or held.decision.action == _REVIEW
    if entry.action in _DECISIONS or (entry.action == _REVIEW and undecided):
        after = replace(after, decision=entry)
    if after.active and not held.active:
        after = replace(after, activation=entry, replaces=_stopped_for(entry, before))
    if not after.active:
        after = replace(after, activation=None, replaces="")
    return after


def _stopped_for(entry: Trail, before: Trail | None) -> str:
    """The version that stopped in the same step, if one did."""
    if before is None or before.action != "deactivated":
        return ""
    same = before.at == entry.at and before.revision == entry.revision - 1 and before.actor == entry.actor
    return before.subject if same else ""
