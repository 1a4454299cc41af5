"""SQL of requests to forget a person and of their proofs: one statement a function, connection first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg

from fleet_kit.db import Connection


@dataclass(frozen=True)
class Erasure:
    """A request to forget a person and, once it is done, its proof. `subject` is the keyed digest of the name."""

    erasure_id: str
    domain: str
    subject: str
    requested_by: str
    reason: str
    retire: bool
    state: str
    requested_at: datetime
    replace: bool = False
    erased_at: datetime | None = None
    datasets: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    deleted: dict[str, dict[str, object]] = field(default_factory=dict)
    late: int = 0


@dataclass(frozen=True)
class ServiceState:
    """How far one service is."""

    service: str
    state: str
    deleted: int
    changed_at: datetime


@dataclass(frozen=True)
class SubjectRecord:
    """A record about a person, and the message that it came in; sequence 0 is none."""

    domain: str
    kind: str
    record_id: str
    stream: str
    sequence: int


async def add_erasure(connection: Connection, erasure: Erasure) -> bool:
    """Keep a request; False where this person is forgotten in this domain already."""
    return bool(
        await connection.fetchval(
            """
            insert into erasures (erasure_id, domain, subject, requested_by, reason, retire, state, replace)
            values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing returning true
            """,
            erasure.erasure_id,
            erasure.domain,
            erasure.subject,
            erasure.requested_by,
            erasure.reason,
            erasure.retire,
            erasure.state,
            erasure.replace,
        )
    )


async def erasure_of(connection: Connection, subject: str, domain: str) -> Erasure | None:
    """The request about a person in a domain."""
    row = await connection.fetchrow("select * from erasures where subject = $1 and domain = $2", subject, domain)
    return _erasure(row) if row else None


async def find_erasure(connection: Connection, erasure_id: str) -> Erasure | None:
    row = await connection.fetchrow("select * from erasures where erasure_id = $1", erasure_id)
    return _erasure(row) if row else None


async def list_erasures(connection: Connection, domains: Sequence[str] | None, limit: int) -> list[Erasure]:
    """The newest requests of these domains (None: of all)."""
    rows = await connection.fetch(
        "select * from erasures where $1::text[] is null or domain = any($1) order by requested_at desc limit $2",
        domains,
        limit,
    )
    return [_erasure(row) for row in rows]


async def services_of(connection: Connection, erasure_id: str) -> list[ServiceState]:
    rows = await connection.fetch(
        "select service, state, deleted, changed_at from erasure_services where erasure_id = $1 order by service",
        erasure_id,
    )
    return [ServiceState(**dict(row)) for row in rows]


async def set_service(connection: Connection, erasure_id: str, service: str, state: str, *, parts: int = 1) -> None:
    """How far a service is; `parts` of the event it has to answer."""
    await connection.execute(
        """
        insert into erasure_services (erasure_id, service, state, parts) values ($1, $2, $3, $4)
        on conflict (erasure_id, service)
            do update set state = excluded.state, parts = excluded.parts, changed_at = now()
        where erasure_services.state <> 'erased'
        """,
        erasure_id,
        service,
        state,
        parts,
    )


async def begin(connection: Connection, erasure_id: str) -> None:
    """The work is under way."""
    await connection.execute(
        "update erasures set state = 'erasing' where erasure_id = $1 and state = 'requested'", erasure_id
    )


async def add_part(connection: Connection, erasure_id: str, service: str, part: int) -> bool:
    """A service has answered a part; False where it had before."""
    return bool(
        await connection.fetchval(
            "insert into erasure_parts values ($1, $2, $3) on conflict do nothing returning true",
            erasure_id,
            service,
            part,
        )
    )


async def count_deleted(connection: Connection, erasure_id: str, service: str, deleted: int) -> None:
    """Add to what a service has deleted; it has erased once it has answered every part."""
    await connection.execute(
        """
        update erasure_services set deleted = deleted + $3, changed_at = now(), state = case
            when (select count(*) from erasure_parts where erasure_id = $1 and service = $2 and part > 0) >= parts
            then 'erased' else 'erasing' end
        where erasure_id = $1 and service = $2
        """,
        erasure_id,
        service,
        deleted,
    )


async def end(connection: Connection, erasure_id: str) -> None:
    """It is erased where every service has."""
    await connection.execute(
        """
        update erasures set state = 'erased', erased_at = now()
        where erasure_id = $1 and state <> 'erased' and not exists (
            select from erasure_services where erasure_id = $1 and state <> 'erased'
        )
        """,
        erasure_id,
    )


async def prove(
    connection: Connection,
    erasure_id: str,
    *,
    datasets: Sequence[str],
    adapters: Sequence[str],
    deleted: dict[str, dict[str, object]],
) -> None:
    """Keep what was found and deleted: counts and digests, no text."""
    await connection.execute(
        "update erasures set datasets = $2, adapters = $3, deleted = $4 where erasure_id = $1",
        erasure_id,
        list(datasets),
        list(adapters),
        deleted,
    )


async def records_of(connection: Connection, subject: str, domain: str) -> list[SubjectRecord]:
    """What is recorded about a person in a domain ("*": in all)."""
    rows = await connection.fetch(
        """
        select domain, kind, record_id, stream, sequence from subject_records
        where subject = $1 and (
            $2 = '*' or domain = $2
            -- who rates an answer may not know its domain
            or domain = '' and record_id in (select generation_id from answers where answers.domain = $2)
        )
        order by kind, record_id, sequence
        """,
        subject,
        domain,
    )
    return [SubjectRecord(**dict(row)) for row in rows]


async def texts_of_answers(connection: Connection, generations: Sequence[str]) -> list[str]:
    """URIs of the objects that brought the texts of these answers."""
    rows = await connection.fetch(
        "select content_uri from answers where generation_id = any($1) and content_uri <> '' order by content_uri",
        generations,
    )
    return [row["content_uri"] for row in rows]


async def delete_samples(connection: Connection, sample_ids: Sequence[str], generations: Sequence[str]) -> int:
    """Delete samples by their ids, and those that came of answers."""
    status = await connection.execute(
        "delete from samples where sample_id = any($1) or source_id = any($2)", sample_ids, generations
    )
    return _count(status)


async def delete_preferences(connection: Connection, preference_ids: Sequence[str], generations: Sequence[str]) -> int:
    """Delete preferences by their ids, and those that came of answers."""
    status = await connection.execute(
        "delete from preferences where preference_id = any($1) or source_id = any($2)", preference_ids, generations
    )
    return _count(status)


async def delete_rankings(connection: Connection, generations: Sequence[str]) -> int:
    """Delete rankings that have one of these answers."""
    return _count(await connection.execute("delete from rankings where generation_ids && $1::text[]", generations))


async def delete_answers(connection: Connection, generations: Sequence[str]) -> int:
    """Delete recorded answers."""
    return _count(await connection.execute("delete from answers where generation_id = any($1)", generations))


async def delete_feedback(connection: Connection, generations: Sequence[str]) -> int:
    """Delete what people said of these answers."""
    status = await connection.execute(
        "delete from answer_feedback where generation_id = any($1) or preferred_over = any($1)", generations
    )
    return _count(status)


async def delete_records(connection: Connection, subject: str, records: Sequence[SubjectRecord]) -> None:
    """Forget that there were these records, those of other people in the same samples included.

    Not what has come since they were read: its message is still to be deleted.
    """
    await connection.execute(
        """
        with erased as (
            select * from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
                as erased (domain, kind, record_id, stream, sequence)
        )
        delete from subject_records where subject = $1
            and (domain, kind, record_id, stream, sequence) in (select * from erased)
            or subject <> $1 and kind in ('sample', 'preference')
            and (kind, record_id) in (select kind, record_id from erased)
        """,
        subject,
        [one.domain for one in records],
        [one.kind for one in records],
        [one.record_id for one in records],
        [one.stream for one in records],
        [one.sequence for one in records],
    )


def _count(status: str) -> int:
    return int(status.rsplit(maxsplit=1)[-1])


async def recently_erased(connection: Connection, service: str, within: timedelta) -> list[Erasure]:
    """Requests of the last time whose rows this service has erased."""
    rows = await connection.fetch(
        """
        select erasures.* from erasures join erasure_services using (erasure_id)
        where service = $1 and erasure_services.state = 'erased' and requested_at > now() - $2::interval
        """,
        service,
        within,
    )
    return [_erasure(row) for row in rows]


async def add_found(connection: Connection, erasure_id: str, datasets: Sequence[str], adapters: Sequence[str]) -> None:
    """Keep what was found after the rows were erased."""
    await connection.execute(
        "update erasures set datasets = $2, adapters = $3 where erasure_id = $1",
        erasure_id,
        list(datasets),
        list(adapters),
    )


def _erasure(row: asyncpg.Record) -> Erasure:
    return Erasure(**{**dict(row), "datasets": tuple(row["datasets"]), "adapters": tuple(row["adapters"])})
