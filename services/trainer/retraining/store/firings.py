"""SQL of firings and of causes that were held back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from fleet_events.v1 import RetrainingTrigger
from fleet_kit.db import Connection
from services.trainer.retraining.decision import Cause, Suppressed
from services.trainer.retraining.situation import Spent


@dataclass(frozen=True)
class Firing:
    """A job that rules requested. `state` and `error` are the job's; empty until its request was accepted.

    `tokens`: those that it has trained on so far.
    """

    job_id: str
    domain: str
    active_adapter: str
    triggers: tuple[RetrainingTrigger, ...]
    reason: str
    planned_steps: int
    fired_at: datetime
    planned_tokens: int = 0
    tokens: int = 0
    state: str = ""
    error: str = ""


@dataclass(frozen=True)
class HeldBack:
    """A cause that led to no job, how often that was found, and when first and last."""

    domain: str
    trigger: str
    reason: str
    why: str
    detail: str
    times: int
    first_at: datetime
    last_at: datetime


async def add_firing(connection: Connection, firing: Firing, causes: Sequence[Cause]) -> None:
    """Record a firing."""
    await connection.execute(
        """
        insert into retraining_firings
            (job_id, domain, active_adapter, triggers, causes, reason, planned_steps, fired_at, planned_tokens)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        firing.job_id,
        firing.domain,
        firing.active_adapter,
        [one.value for one in firing.triggers],
        [one.key for one in causes],
        firing.reason,
        firing.planned_steps,
        firing.fired_at,
        firing.planned_tokens,
    )


async def add_causes(connection: Connection, firing: Firing, causes: Sequence[Cause]) -> None:
    """Record which causes it answers; raises UniqueViolationError for one that was answered before."""
    await connection.execute(
        "insert into retraining_causes (domain, cause, job_id) select $1, unnest($2::text[]), $3",
        firing.domain,
        [one.key for one in causes],
        firing.job_id,
    )


async def add_suppressed(connection: Connection, domain: str, held: Suppressed, now: datetime) -> bool:
    """Record that a cause was held back; whether that is new."""
    return bool(
        await connection.fetchval(
            """
            insert into retraining_suppressed as held (domain, cause, why, trigger, reason, detail, first_at, last_at)
            values ($1, $2, $3, $4, $5, $6, $7, $7)
            on conflict (domain, cause, why) do update
                set reason = $5, detail = $6, times = held.times + 1, last_at = $7
            returning xmax = 0
            """,
            domain,
            held.cause.key,
            held.why,
            held.cause.trigger.value,
            held.cause.reason,
            held.detail,
            now,
        )
    )


async def forget_suppressed(connection: Connection, domain: str, before: datetime) -> None:
    """Drop what has not been held back for long."""
    await connection.execute("delete from retraining_suppressed where domain = $1 and last_at < $2", domain, before)


async def handled(connection: Connection, domain: str) -> frozenset[str]:
    """Keys of the causes that firings of the domain have answered."""
    rows = await connection.fetch("select cause from retraining_causes where domain = $1", domain)
    return frozenset(row["cause"] for row in rows)


async def answered_by(connection: Connection, domain: str, cause: str) -> str:
    """The job that answered a cause; empty for none."""
    found: str | None = await connection.fetchval(
        "select job_id from retraining_causes where domain = $1 and cause = $2", domain, cause
    )
    return found or ""


async def is_firing(connection: Connection, job_id: str) -> bool:
    """Whether a job was requested by rules, or stands for a cause that they answer."""
    return bool(await connection.fetchval("select exists (select from retraining_firings where job_id = $1)", job_id))


async def last_fired(connection: Connection, domain: str) -> datetime | None:
    """When the domain's rules fired last."""
    found: datetime | None = await connection.fetchval(
        "select max(fired_at) from retraining_firings where domain = $1", domain
    )
    return found


async def spent_since(connection: Connection, domain: str, since: datetime) -> tuple[Spent, ...]:
    """Firings after a time. Tokens of a job that has ended are those of its steps, of an open one the planned ones."""
    rows = await connection.fetch(
        """
        select fired_at, planned_steps, case when jobs.finished_at is null
            then greatest(planned_tokens, trained.tokens) else trained.tokens end as tokens
        from retraining_firings firing left join jobs using (job_id) cross join lateral (
            select coalesce(sum(steps.tokens), 0)::bigint as tokens from steps where steps.job_id = firing.job_id
        ) trained
        where firing.domain = $1 and fired_at > $2
        """,
        domain,
        since,
    )
    return tuple(Spent(row["fired_at"], row["planned_steps"], row["tokens"]) for row in rows)


async def tokens_of_a_step(connection: Connection, domain: str, batch_size: int, default_batch_size: int) -> int:
    """Mean tokens of a step of the newest training of the domain's rules, at this batch size; 0 for none."""
    found: int | None = await connection.fetchval(
        """
        select ceil(avg(steps.tokens) * $2 / coalesce(
            nullif((jobs.request->'hyperparameters'->>'batchSize')::int, 0), $3
        ))::bigint
        from retraining_firings firing join jobs using (job_id) join steps using (job_id)
        where firing.domain = $1 group by jobs.job_id, jobs.created_at order by jobs.created_at desc limit 1
        """,
        domain,
        batch_size,
        default_batch_size,
    )
    return found or 0


async def open_job(connection: Connection, domain: str) -> str:
    """A job of a firing that has not ended, or whose request is still on its way; empty for none."""
    found: str | None = await connection.fetchval(
        """
        select firing.job_id from retraining_firings firing left join jobs using (job_id)
        where firing.domain = $1 and (jobs.state is null or jobs.state in ('queued', 'running', 'paused'))
        order by firing.fired_at limit 1
        """,
        domain,
    )
    return found or ""


async def list_firings(connection: Connection, domain: str, limit: int) -> list[Firing]:
    """The newest firings of a domain, each with its job's state."""
    rows = await connection.fetch(
        """
        select firing.*, coalesce(jobs.state, '') as state, coalesce(jobs.error, '') as error,
            (select coalesce(sum(steps.tokens), 0)::bigint from steps where steps.job_id = firing.job_id) as tokens
        from retraining_firings firing left join jobs using (job_id)
        where firing.domain = $1 order by firing.fired_at desc limit $2
        """,
        domain,
        limit,
    )
    return [_firing(row) for row in rows]


async def list_suppressed(connection: Connection, domain: str, limit: int) -> list[HeldBack]:
    """What was held back in a domain, newest first."""
    rows = await connection.fetch(
        """
        select domain, trigger, reason, why, detail, times, first_at, last_at from retraining_suppressed
        where domain = $1 order by last_at desc, cause, why limit $2
        """,
        domain,
        limit,
    )
    return [HeldBack(**dict(row)) for row in rows]


def _firing(row: asyncpg.Record) -> Firing:
    return Firing(
        job_id=row["job_id"],
        domain=row["domain"],
        active_adapter=row["active_adapter"],
        triggers=tuple(RetrainingTrigger(one) for one in row["triggers"]),
        reason=row["reason"],
        planned_steps=row["planned_steps"],
        fired_at=row["fired_at"],
        planned_tokens=row["planned_tokens"],
        tokens=row["tokens"],
        state=row["state"],
        error=row["error"],
    )
