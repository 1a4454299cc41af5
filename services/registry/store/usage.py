"""Counters of what versions did in service: answers, ratings, replicas. One SQL statement a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime

from fleet_events import v1
from fleet_kit.db import Connection


@dataclass(frozen=True, slots=True)
class Usage:
    """Answers that a version gave. `latency_ms` is the mean over them."""

    answers: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_ms: float | None = None
    first_used_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """Ratings of a version's answers, 1 to 5; `ratings` counts each."""

    count: int
    average: float | None
    ratings: dict[int, int]


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that loaded a version and proved its effect."""

    replica: str
    artifact_sha256: str
    loads: int
    load_ms: float
    modules_bound: int
    max_delta: float
    first_loaded_at: datetime
    last_loaded_at: datetime
    unloaded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """Answers of a version on a base model. `latency_ms` is the sum over those that were not cancelled."""

    adapter_id: str
    domain: str
    base_model: str
    answers: int
    cancelled: int
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    first_used_at: datetime
    last_used_at: datetime


async def count_answers(connection: Connection, counted: Sequence[Counted]) -> None:
    """Add to the counters of versions, of which none is there twice."""
    columns = zip(*map(astuple, counted), strict=True) if counted else ([] for _ in fields(Counted))
    await connection.execute(
        """
        insert into usage
        select * from unnest(
            $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::float8[],
            $9::timestamptz[], $10::timestamptz[]
        )
        on conflict (adapter_id, base_model) do update set
            answers = usage.answers + excluded.answers,
            cancelled = usage.cancelled + excluded.cancelled,
            prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,
            completion_tokens = usage.completion_tokens + excluded.completion_tokens,
            latency_ms = usage.latency_ms + excluded.latency_ms,
            first_used_at = least(usage.first_used_at, excluded.first_used_at),
            last_used_at = greatest(usage.last_used_at, excluded.last_used_at)
        """,
        *map(list, columns),
    )


async def rate_answer(connection: Connection, event: v1.FeedbackRecorded, at: datetime) -> None:
    """Keep the newest rating that this person gave this answer."""
    await connection.execute(
        """
        insert into feedback values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (generation_id, rated_by) do update set
            adapter_id = excluded.adapter_id, domain = excluded.domain, rating = excluded.rating,
            comment = excluded.comment, rated_at = excluded.rated_at
        where feedback.rated_at < excluded.rated_at
        """,
        event.generation_id,
        event.by,
        event.adapter_id,
        event.domain,
        event.rating,
        event.comment,
        at,
    )


async def note_replica(connection: Connection, event: v1.AdapterLoaded, at: datetime) -> None:
    """Keep that a replica holds a version; the figures are those of its newest load."""
    await connection.execute(
        """
        insert into replica (
            adapter_id, replica, artifact_sha256, loads, load_ms, modules_bound, max_delta, first_loaded_at,
            last_loaded_at
        ) values ($1, $2, $3, 1, $4, $5, $6, $7, $7)
        on conflict (adapter_id, replica) do update set
            loads = replica.loads + 1,
            load_ms = case when excluded.last_loaded_at >= replica.last_loaded_at
                then excluded.load_ms else replica.load_ms end,
            modules_bound = case when excluded.last_loaded_at >= replica.last_loaded_at
                then excluded.modules_bound else replica.modules_bound end,
            max_delta = case when excluded.last_loaded_at >= replica.last_loaded_at
                then excluded.max_delta else replica.max_delta end,
            artifact_sha256 = excluded.artifact_sha256,
            first_loaded_at = least(replica.first_loaded_at, excluded.first_loaded_at),
            last_loaded_at = greatest(replica.last_loaded_at, excluded.last_loaded_at)
        """,
        event.adapter_id,
        event.replica,
        event.artifact_sha256,
        event.load_ms,
        event.modules_bound,
        event.max_delta,
        at,
    )


async def note_unloaded(connection: Connection, event: v1.AdapterUnloaded, at: datetime) -> None:
    """Keep when a replica gave a version up, also where its load is still to come; the newest time counts."""
    await connection.execute(
        """
        insert into replica (
            adapter_id, replica, artifact_sha256, loads, load_ms, modules_bound, max_delta, first_loaded_at,
            last_loaded_at, unloaded_at
        ) values ($1, $2, $3, 0, 0, 0, 0, $4, $4, $4)
        on conflict (adapter_id, replica) do update set
            unloaded_at = greatest(replica.unloaded_at, excluded.unloaded_at)
        """,
        event.adapter_id,
        event.replica,
        event.artifact_sha256,
        at,
    )


async def usage_of(connection: Connection, adapter_id: str) -> Usage:
    row = await connection.fetchrow(
        """
        select coalesce(sum(answers), 0)::bigint as answers, coalesce(sum(cancelled), 0)::bigint as cancelled,
            coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,
            coalesce(sum(completion_tokens), 0)::bigint as completion_tokens,
            sum(latency_ms) / nullif(sum(answers), 0)::double precision as latency_ms,
            min(first_used_at) as first_used_at, max(last_used_at) as last_used_at
        from usage where adapter_id = $1
        """,
        adapter_id,
    )
    return Usage(**dict(row)) if row else Usage()


async def feedback_of(connection: Connection, adapter_id: str) -> Feedback:
    rows = await connection.fetch(
        "select rating, count(*) as times from feedback where adapter_id = $1 group by rating", adapter_id
    )
    ratings = dict.fromkeys(range(1, 6), 0) | {row["rating"]: row["times"] for row in rows}
    count = sum(ratings.values())
    average = sum(rating * times for rating, times in ratings.items()) / count if count else None
    return Feedback(count, average, ratings)


async def replicas_of(connection: Connection, adapter_id: str) -> tuple[Replica, ...]:
    rows = await connection.fetch(
        """
        select replica, artifact_sha256, loads, load_ms, modules_bound, max_delta, first_loaded_at, last_loaded_at,
            case when unloaded_at >= last_loaded_at then unloaded_at end as unloaded_at
        from replica where adapter_id = $1 and loads > 0 order by first_loaded_at
        """,
        adapter_id,
    )
    return tuple(Replica(**dict(row)) for row in rows)
