"""What can happen to a family's rollout: pure transitions (family, input) → new family + events + audit entries.

At most one rollout of a family runs. A candidate that completes it is activated (`domain.activate`), which ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fleet_events import Event, v1
from fleet_events.v1 import DeliveryMode
from services.registry.family import Adapter, Family, Status
from services.registry.rollout.rules import Delivery
from services.registry.rollout.state import Rollout, State
from services.registry.transition import Act, Announcement, AuditEntry, Change, NotAllowed, UnknownAdapter

Found = Sequence[v1.Evidence]


def take_over(family: Family, adapter_id: str, rules: Delivery, act: Act) -> Change | None:
    """An approved version above the active one begins to serve by a rollout; None where it is to be activated at once.

    One below the candidate of a rollout that runs waits for a human, as does one that the mode does not suit.
    """
    candidate, incumbent, running = family.find(adapter_id), family.active, family.rollout
    if candidate is None or incumbent is None:
        return None
    if running is not None and running.candidate_id == adapter_id:
        return Change(family, adapter_id=adapter_id)
    ahead = family.find(running.candidate_id) if running else None
    if ahead is not None and ahead.version > candidate.version:
        reason = f"{ahead.adapter_id}, which is higher, is being rolled out"
    elif rules.mode is DeliveryMode.AT_ONCE:
        return None
    elif not (reason := why_not(candidate, incumbent, rules)):
        return start(family, adapter_id, rules, act)
    state: dict[str, object] = {"status": candidate.status.value, "active": candidate.active}
    entry = AuditEntry(adapter_id, "not_rolled_out", replace(act, reason=reason), state, state, family.revision)
    return Change(family, entries=(entry,), adapter_id=adapter_id)


def start(family: Family, candidate_id: str, rules: Delivery, act: Act) -> Change:
    """A candidate begins to take over from the active version, in the mode of the rules.

    A rollout of another candidate that runs is rolled back.

    Raises:
        UnknownAdapter: there is no such version.
        NotAllowed: it is not approved, or active already; there is no active version to take over from; the mode is
            `at_once`, or `shadow` with versions of two base models; a rollout of this candidate runs already.
    """
    candidate, incumbent, running = family.find(candidate_id), family.active, family.rollout
    if candidate is None:
        raise UnknownAdapter(candidate_id)
    if candidate.status is not Status.APPROVED:
        raise NotAllowed(f"{candidate_id} is {candidate.status}; only an approved version can be rolled out")
    if incumbent is None:
        raise NotAllowed(f"{family.family_id} has no active version to take over from; activate {candidate_id}")
    if candidate.active:
        raise NotAllowed(f"{candidate_id} is active already")
    if running is not None and running.candidate_id == candidate_id:
        raise NotAllowed(f"{running.rollout_id} runs already; roll it back first", "rollout")
    if reason := why_not(candidate, incumbent, rules):
        raise NotAllowed(reason, "mode")
    change = Change(family, adapter_id=candidate_id)
    if running is not None:
        superseded = replace(act, reason=f"superseded by {candidate_id}")
        change = roll_back(family, superseded)
    rollout = Rollout(
        rollout_id=f"{candidate_id}.{change.family.next_revision}",
        mode=rules.mode,
        candidate_id=candidate_id,
        incumbent_id=incumbent.adapter_id,
        rules=rules,
        started_at=act.at,
        step_at=act.at,
        reason=act.reason,
    )
    started = v1.CanaryStarted(
        family=family.family_id,
        domain=family.domain,
        revision=change.family.next_revision,
        rollout=rollout.card,
        by=act.by,
        reason=act.reason,
    )
    return change.then(_announce(change.family, started, rollout, act, "rollout_started"))


def newest(family: Family) -> str:
    """The highest approved version above the active one; raises NotAllowed where there is none."""
    approved = [one for one in family.versions if one.status is Status.APPROVED]
    highest = max(approved, key=lambda one: one.version, default=None)
    if highest is None or highest.active:
        raise NotAllowed(
            f"{family.family_id} has no approved version above the active one; name a candidate", "candidate"
        )
    return highest.adapter_id


def why_not(candidate: Adapter, incumbent: Adapter, rules: Delivery) -> str:
    """Why the mode of the rules cannot be used for these two; empty where it can."""
    if rules.mode is DeliveryMode.AT_ONCE:
        return "the mode is at_once: activate the version, or name another mode"
    revisions = {one.submission.base_model.revision for one in (candidate, incumbent)}
    if rules.mode is DeliveryMode.SHADOW and len(revisions) > 1:
        return (
            f"{candidate.adapter_id} and {incumbent.adapter_id} have different base models, and shadow computes both "
            "answers from the same tokens: name another mode"
        )
    return ""


def advance(family: Family, act: Act, evidence: Found = ()) -> Change:
    """The next step: more callers get the candidate. Raises NotAllowed at the last one, and where nothing runs."""
    rollout = running_of(family)
    if rollout.last_step:
        raise NotAllowed(f"{rollout.rollout_id} is at its last step; promote it", "rollout")
    further = replace(rollout, step=rollout.step + 1, step_at=act.at, reason=act.reason)
    return _moved(family, further, act, "rollout_advanced", evidence)


def pause(family: Family, act: Act) -> Change:
    """It keeps its step, and still goes back by itself where the candidate is worse. Pausing twice changes nothing."""
    rollout = running_of(family)
    if rollout.paused:
        return Change(family, adapter_id=rollout.candidate_id)
    return _moved(family, replace(rollout, paused=True, reason=act.reason), act, "rollout_paused")


def resume(family: Family, act: Act) -> Change:
    """It continues; the time of its step begins again."""
    rollout = running_of(family)
    if not rollout.paused:
        return Change(family, adapter_id=rollout.candidate_id)
    going = replace(rollout, paused=False, step_at=act.at, reason=act.reason)
    return _moved(family, going, act, "rollout_resumed")


def roll_back(family: Family, act: Act, evidence: Found = ()) -> Change:
    """The incumbent answers alone again; the candidate stays approved. Raises NotAllowed where nothing runs."""
    rollout = running_of(family)
    ended = replace(rollout, state=State.ROLLED_BACK, ended_at=act.at, reason=act.reason)
    back = v1.CanaryRolledBack(
        family=family.family_id,
        domain=family.domain,
        revision=family.next_revision,
        rollout=rollout.card,
        by=act.by,
        reason=act.reason,
        evidence=tuple(evidence),
    )
    return _announce(family, back, ended, act, "rollout_rolled_back", evidence=evidence)


def without(family: Family, adapter_id: str, act: Act) -> Change:
    """A version leaves service: a rollout that it is part of is rolled back first."""
    rollout = family.rollout
    if rollout is None or adapter_id not in (rollout.candidate_id, rollout.incumbent_id):
        return Change(family, adapter_id=adapter_id)
    return roll_back(family, replace(act, reason=act.reason or f"{adapter_id} was taken out of service"))


def before_activation(family: Family, adapter_id: str, act: Act) -> tuple[Change, str]:
    """A version is activated: its own rollout is completed by that, another one rolled back.

    Returns the change and the id of the rollout that the activation completes, empty where there is none.
    """
    rollout = family.rollout
    if rollout is None:
        return Change(family, adapter_id=adapter_id), ""
    if rollout.candidate_id != adapter_id:
        return roll_back(family, replace(act, reason=act.reason or f"{adapter_id} was activated")), ""
    ended = replace(rollout, state=State.PROMOTED, ended_at=act.at, reason=act.reason)
    return Change(family.with_rollout(ended), adapter_id=adapter_id), rollout.rollout_id


def running_of(family: Family) -> Rollout:
    """The family's rollout; raises NotAllowed where none runs."""
    if family.rollout is None:
        raise NotAllowed(f"no rollout of {family.family_id} is running", "rollout")
    return family.rollout


def _moved(family: Family, rollout: Rollout, act: Act, action: str, evidence: Found = ()) -> Change:
    moved = v1.CanaryAdvanced(
        family=family.family_id,
        domain=family.domain,
        revision=family.next_revision,
        rollout=rollout.card,
        by=act.by,
        reason=act.reason,
        evidence=tuple(evidence),
        paused=rollout.paused,
    )
    return _announce(family, moved, rollout, act, action, evidence=evidence)


def _announce(family: Family, event: Event, rollout: Rollout, act: Act, action: str, *, evidence: Found = ()) -> Change:
    revision, before = family.next_revision, family.rollout
    candidate = family.find(rollout.candidate_id)
    state = {"status": candidate.status.value, "active": candidate.active} if candidate else {}
    found = {"evidence": [one.model_dump(mode="json") for one in evidence]} if evidence else {}
    entry = AuditEntry(
        rollout.candidate_id,
        action,
        act,
        state | (_told(before) if before and before.rollout_id == rollout.rollout_id else {}),
        state | _told(rollout) | found,
        revision,
    )
    after = replace(family.with_rollout(rollout), revision=revision)
    return Change(after, (Announcement(event, rollout.candidate_id),), (entry,), rollout.candidate_id)


def _told(rollout: Rollout) -> dict[str, object]:
    return {
        "rollout_id": rollout.rollout_id,
        "mode": rollout.mode.value,
        "incumbent": rollout.incumbent_id,
        "step": rollout.step,
        "share": rollout.share,
        "paused": rollout.paused,
        "state": rollout.state.value,
    }
