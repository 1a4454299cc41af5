"""Which versions are kept, and the transitions of keeping: hold, release. Pure.

A version's files are needed by itself, and by every version whose training continued it: its digest chain is part of
theirs. Nothing that a kept version needs is released.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from fleet_events import Event, v1
from services.registry.family import Adapter, Family, Status
from services.registry.transition import Act, Announcement, AuditEntry, Change, NotAllowed, UnknownAdapter


class KeepRules(BaseModel):
    """How long a domain's versions are kept that do not serve; None is for good.

    `rejected_days` and `superseded_days` count from the decision or the last answer, whichever is later. The
    `keep_newest` highest approved versions of a family are kept at any age.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rejected_days: float | None = Field(default=90, ge=0)
    superseded_days: float | None = Field(default=None, ge=0)
    keep_newest: int = Field(default=3, ge=1)


@dataclass(frozen=True, slots=True)
class Releasable:
    """A version that the rules let go, and why."""

    adapter_id: str
    reason: str


def releasable(
    adapters: Sequence[Adapter],
    last_used: Mapping[str, datetime],
    rules: KeepRules,
    now: datetime,
    *,
    in_use: Collection[str] = (),
) -> list[Releasable]:
    """The versions of a domain that its rules let go, without those that a kept version was made from.

    Args:
        adapters: all of the domain.
        last_used: when a version last answered, by adapter id.
        rules: the domain's.
        now: ages end here.
        in_use: versions with a part in a rollout that runs, or on their way to another base model.
    """
    newest = _newest(adapters, rules.keep_newest)
    why = {
        one.adapter_id: reason
        for one in adapters
        if one.released_at is None
        and one.adapter_id not in newest
        and one.adapter_id not in in_use
        and (reason := _let_go(one, last_used.get(one.adapter_id), rules, now))
    }
    needed = made_from(adapters, (one for one in adapters if one.adapter_id not in why and one.released_at is None))
    return [Releasable(name, reason) for name, reason in why.items() if name not in needed]


def made_from(adapters: Sequence[Adapter], kept: Iterable[Adapter]) -> set[str]:
    """The kept versions, and all that their trainings continued, and theirs, by adapter id."""
    by_name = {one.adapter_id: one for one in adapters}
    by_name |= {one.submission.training.job_id: one for one in adapters if one.submission.training}
    needed: set[str] = set()
    waiting = list(kept)
    while waiting:
        one = waiting.pop()
        if one.adapter_id in needed:
            continue
        needed.add(one.adapter_id)
        training = one.submission.training
        if training is not None and (parent := by_name.get(training.continued_from)):
            waiting.append(parent)
    return needed


def hold(family: Family, adapter_id: str, act: Act, *, held: bool) -> Change:
    """Keep a version's files against the rules, or no longer; raises NotAllowed for what is released."""
    adapter = existing(family, adapter_id)
    if adapter.held == held:
        return Change(family, adapter_id=adapter_id)
    check_kept(adapter)
    event = v1.AdapterHeld(
        adapter_id=adapter_id,
        family=family.family_id,
        domain=family.domain,
        revision=family.next_revision,
        held=held,
        by=act.by,
        reason=act.reason,
    )
    return _announce(family, event, act, "held" if held else "unheld", replace(adapter, held=held))


def release(family: Family, adapter_id: str, act: Act) -> Change:
    """Let a version's files go: final. Raises NotAllowed for one that serves, is held or waits for its decision."""
    adapter = existing(family, adapter_id)
    if adapter.released_at is not None:
        return Change(family, adapter_id=adapter_id)
    if adapter.active or adapter.held or adapter.status is Status.PENDING_REVIEW:
        state = "active" if adapter.active else "held" if adapter.held else "waiting for its decision"
        raise NotAllowed(f"{adapter_id} is {state}; its files are kept")
    training = adapter.submission.training
    event = v1.AdapterReleased(
        adapter_id=adapter_id,
        family=family.family_id,
        domain=family.domain,
        revision=family.next_revision,
        job_id=training.job_id if training else "",
        by=act.by,
        reason=act.reason,
    )
    return _announce(family, event, act, "released", replace(adapter, released_at=act.at))


def existing(family: Family, adapter_id: str) -> Adapter:
    """The version of a family; raises UnknownAdapter."""
    adapter = family.find(adapter_id)
    if adapter is None:
        raise UnknownAdapter(adapter_id)
    return adapter


def check_kept(adapter: Adapter) -> None:
    """Raises NotAllowed for a version whose files may be gone."""
    if adapter.released_at is not None:
        raise NotAllowed(
            f"{adapter.adapter_id} was released at {adapter.released_at.isoformat()}: its files may be deleted; "
            "register a new version instead"
        )


def _let_go(one: Adapter, last_used: datetime | None, rules: KeepRules, now: datetime) -> str:
    """Why the rules let a version go that nothing else needs; empty where they keep it."""
    if one.active or one.held or one.status is Status.PENDING_REVIEW:
        return ""
    days = rules.rejected_days if one.status is Status.REJECTED else rules.superseded_days
    since = max(one.decided_at or one.registered_at, last_used or one.registered_at)
    if days is None or now - since < timedelta(days=days):
        return ""
    what = "rejected" if one.status is Status.REJECTED else "superseded"
    return f"{what} and unused since {since.date().isoformat()}, kept for {days:g} days"


def _newest(adapters: Sequence[Adapter], most: int) -> set[str]:
    """The highest approved versions of each family."""
    families: dict[str, list[Adapter]] = {}
    for one in adapters:
        if one.status is Status.APPROVED:
            families.setdefault(one.submission.family, []).append(one)
    ranked = (sorted(found, key=lambda one: one.version, reverse=True)[:most] for found in families.values())
    return {one.adapter_id for found in ranked for one in found}


def _announce(family: Family, event: Event, act: Act, action: str, after: Adapter) -> Change:
    before = existing(family, after.adapter_id)
    entry = AuditEntry(after.adapter_id, action, act, _state(before), _state(after), family.next_revision)
    changed = replace(family.with_adapter(after), revision=family.next_revision)
    return Change(changed, (Announcement(event, after.adapter_id),), (entry,), after.adapter_id)


def _state(adapter: Adapter) -> dict[str, object]:
    return {
        "status": adapter.status.value,
        "active": adapter.active,
        "held": adapter.held,
        "released": adapter.released_at is not None,
    }
