"""What readers ask for: one SQL statement a function, connection first.

`domains` are the domains that the caller reaches; None reaches all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fleet_kit.db import Connection
from services.registry.family import Adapter
from services.registry.store.versions import adapter_of

Domains = list[str] | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which versions are wanted; None does not filter. `base_model` is a name or a revision."""

    domain: str | None = None
    method: str | None = None
    status: str | None = None
    base_model: str | None = None
    active: bool | None = None
    family: str | None = None


@dataclass(frozen=True, slots=True)
class Trail:
    """A line of the audit trail as it is kept."""

    subject: str
    domain: str
    at: datetime
    actor: str
    action: str
    reason: str
    before: dict[str, object]
    after: dict[str, object]
    revision: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A finished training that could not be registered."""

    event_id: str
    job_id: str
    domain: str
    artifact_sha256: str
    field: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DomainCounts:
    """A domain's versions by status."""

    domain: str
    families: int
    versions: int
    pending_review: int
    approved: int
    rejected: int
    active: int
    average_score: float | None


@dataclass(frozen=True, slots=True)
class DomainService:
    """What a domain's versions did in service."""

    domain: str
    answers: int
    completion_tokens: int
    ratings: int
    average_rating: float | None


async def adapters(
    connection: Connection, filters: Filters, domains: Domains, before: int | None, limit: int
) -> list[tuple[int, Adapter]]:
    """Versions with their positions, newest registration first, those before a position."""
    rows = await connection.fetch(
        """
        select * from adapter
        where ($1::text is null or domain = $1)
          and ($2::text is null or method = $2)
          and ($3::text is null or status = $3)
          and ($4::text is null or base_model = $4 or base_model_revision = $4)
          and ($5::boolean is null or active = $5)
          and ($6::text[] is null or domain = any($6))
          and ($7::bigint is null or position < $7)
          and ($9::text is null or family_id = $9)
        order by position desc limit $8
        """,
        filters.domain,
        filters.method,
        filters.status,
        filters.base_model,
        filters.active,
        domains,
        before,
        limit,
        filters.family,
    )
    return [(row["position"], adapter_of(row)) for row in rows]


async def trail(connection: Connection, subject: str) -> list[Trail]:
    """The audit trail of an adapter or a policy, oldest first."""
    rows = await connection.fetch(
        """
        select subject, domain, at, actor, action, reason, before, after, revision
        from audit where subject = $1 order by position
        """,
        subject,
    )
    return [Trail(**dict(row)) for row in rows]


async def refusals(connection: Connection, domain: str | None, domains: Domains, limit: int) -> list[Refusal]:
    """Trainings that could not be registered, newest first."""
    rows = await connection.fetch(
        """
        select event_id, job_id, domain, artifact_sha256, field, reason, at from refusal
        where ($1::text is null or domain = $1) and ($2::text[] is null or domain = any($2))
        order by at desc limit $3
        """,
        domain,
        domains,
        limit,
    )
    return [Refusal(**dict(row)) for row in rows]


async def counts(connection: Connection, domains: Domains) -> list[DomainCounts]:
    rows = await connection.fetch(
        """
        select domain, count(distinct family_id) as families, count(*) as versions,
            count(*) filter (where status = 'pending_review') as pending_review,
            count(*) filter (where status = 'approved') as approved,
            count(*) filter (where status = 'rejected') as rejected,
            count(*) filter (where active) as active,
            avg((evaluation->'judgement'->>'score')::double precision) as average_score
        from adapter where $1::text[] is null or domain = any($1)
        group by domain order by domain
        """,
        domains,
    )
    return [DomainCounts(**dict(row)) for row in rows]


async def service(connection: Connection, domains: Domains) -> list[DomainService]:
    """Answers and ratings by domain; '' is the base model without an adapter."""
    rows = await connection.fetch(
        """
        with answered as (
            select domain, sum(answers)::bigint as answers, sum(completion_tokens)::bigint as completion_tokens
            from usage group by domain
        ), rated as (
            select domain, count(*) as ratings, avg(rating)::double precision as average_rating
            from feedback group by domain
        )
        select domain, coalesce(answers, 0) as answers, coalesce(completion_tokens, 0) as completion_tokens,
            coalesce(ratings, 0) as ratings, average_rating
        from answered full join rated using (domain)
        where $1::text[] is null or domain = any($1)
        order by domain
        """,
        domains,
    )
    return [DomainService(**dict(row)) for row in rows]


async def uploaded_bytes(connection: Connection, domain: str) -> int:
    """What the domain's uploads take in the object store: files and artifacts. Trained versions do not count."""
    total = await connection.fetchval(
        """
        select sum((made_of->'artifact'->'blob'->>'bytes')::numeric + (made_of->'checkpoint'->>'bytes')::numeric
            + (made_of->'checkpoint_config'->>'bytes')::numeric)
        from adapter where domain = $1 and job_id is null
        """,
        domain,
    )
    return int(total or 0)
