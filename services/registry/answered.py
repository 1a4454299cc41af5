"""What is kept of answers: counts of the versions that gave them, and who gave which. Statements for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime

from fleet_events import v1
from fleet_kit.errors import Refused
from fleet_kit.handlers import Delivered
from fleet_kit.transaction import Transaction
from services.registry.family import Adapter
from services.registry.store import answers, forgotten, usage, usage_by_month, versions
from services.registry.store.answers import AnsweredWith, Given
from services.registry.store.usage import Counted
from services.registry.store.usage_by_month import MonthlyUsage
from services.registry.transition import NotTheArtifact, UnknownAdapter

KEPT_MONTHS = 24
"""How many months before the present one are kept of what callers took."""


async def count(events: Sequence[Delivered[v1.GenerationCompleted]], tx: Transaction) -> None:
    """Count answers for the adapters that gave them, or for the base model, and keep who gave them.

    One that a rollout's candidate gave beside the served one, shown to nobody, counts for the rollout alone.

    Raises:
        Refused: one of them names what it cannot have been given with.
    """
    known = await versions.find_adapters(tx.connection, sorted({name for one in events for name in _named(one.event)}))
    now = datetime.now(UTC)
    given = [_given(one.event, min(one.envelope.time, now), known) for one in events]
    shown = [one for one in given if one.event.rollout is None or not one.event.rollout.shadow]
    await usage.count_answers(tx.connection, _counted(shown))
    await usage_by_month.add(tx.connection, _by_month(shown))
    await usage_by_month.drop_before(tx.connection, _months_before(now.date(), KEPT_MONTHS))
    await forgotten.lock_kept(tx.connection)
    gone = await forgotten.forgotten_of(tx.connection, [one.event.generation_id for one in shown])
    await answers.add_answers(tx.connection, [one for one in shown if one.event.generation_id not in gone])


def _named(event: v1.GenerationCompleted) -> Iterable[str]:
    yield from (one.adapter_id for one in event.mix)
    if event.adapter_id:
        yield event.adapter_id


def _given(event: v1.GenerationCompleted, at: datetime, known: dict[str, Adapter]) -> Given:
    what, domains = f"generation {event.generation_id}", set[str]()
    adapters = tuple(AnsweredWith(one.adapter_id, one.artifact_sha256, one.weight) for one in event.mix)
    if event.adapter_id:
        alone = AnsweredWith(event.adapter_id, event.artifact_sha256, 1.0)
        adapter = _checked(alone, known, what)
        if adapter.submission.domain != event.domain:
            raise Refused(
                f"domain is {event.domain!r}, but {event.adapter_id} belongs to {adapter.submission.domain!r}"
            )
        domains.add(event.domain)
        adapters = adapters or (alone,)
    domains |= {_checked(one, known, what).submission.domain for one in adapters}
    return Given(event, at, tuple(sorted(domains)), adapters)


def _checked(one: AnsweredWith, known: dict[str, Adapter], what: str) -> Adapter:
    adapter = known.get(one.adapter_id)
    if adapter is None:
        raise Refused(str(UnknownAdapter(one.adapter_id)))
    if one.artifact_sha256 != adapter.artifact_sha256:
        raise Refused(str(NotTheArtifact(adapter, one.artifact_sha256, what)))
    return adapter


def _counted(given: Sequence[Given]) -> list[Counted]:
    """What each version gave, in one order everywhere: two transactions then never wait for one another."""
    groups: dict[tuple[str, str], list[Given]] = {}
    for one in given:
        groups.setdefault((one.event.adapter_id, one.event.base_model), []).append(one)
    return [_sum(groups[key]) for key in sorted(groups)]


def _sum(given: Sequence[Given]) -> Counted:
    first, finished = given[0].event, [one.event for one in given if one.event.finish_reason != "cancelled"]
    return Counted(
        adapter_id=first.adapter_id,
        domain=first.domain,
        base_model=first.base_model,
        answers=len(finished),
        cancelled=len(given) - len(finished),
        prompt_tokens=sum(one.event.prompt_tokens for one in given),
        completion_tokens=sum(one.event.completion_tokens for one in given),
        latency_ms=sum(event.latency_ms for event in finished),
        first_used_at=min(one.at for one in given),
        last_used_at=max(one.at for one in given),
    )


def _by_month(given: Sequence[Given]) -> list[MonthlyUsage]:
    """What each caller took, in one order everywhere, as in `_counted`."""
    groups: dict[tuple[date, str, str], list[v1.GenerationCompleted]] = {}
    for one in given:
        key = (one.at.astimezone(UTC).date().replace(day=1), one.event.domain, one.event.caller)
        groups.setdefault(key, []).append(one.event)
    return [
        MonthlyUsage(
            *key,
            answers=len(events),
            prompt_tokens=sum(event.prompt_tokens for event in events),
            completion_tokens=sum(event.completion_tokens for event in events),
        )
        for key, events in sorted(groups.items())
    ]


def _months_before(day: date, months: int) -> date:
    """The first day of the month that is so many before a day's."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, 1)
