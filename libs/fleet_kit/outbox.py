"""The outbox: a state change and the events it has to publish are one transaction; `relay` publishes them after it.

A PubAck alone is not durable: by default nats-server flushes its files every two minutes (`sync_interval`), so a power
cut can lose what it had acknowledged. Therefore published rows are kept (see `retention`) with where they were stored,
and `outbox_check` has them published again when the server has lost them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nats.js.api import PubAck

from fleet_kit.cloudevents import Outgoing
from fleet_kit.db import Connection, keeps_session

__all__ = ["Waiting", "add", "channel", "lead", "mark", "notify", "unpublished", "waiting"]


@dataclass(frozen=True)
class Waiting:
    """A row that is not marked as published."""

    position: int
    event: Outgoing


def channel(service: str) -> str:
    """Where a transaction notifies the relay of another process that it has committed events."""
    return f"outbox_{service}"


async def add(connection: Connection, *events: Outgoing) -> None:
    """Write events to the outbox in their order, in the caller's transaction."""
    await connection.execute(
        "insert into outbox (event_id, subject, entity, headers, body)"
        " select event_id, subject, entity, headers, body"
        " from unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::bytea[]) with ordinality"
        " as given (event_id, subject, entity, headers, body, number) order by number"
        " on conflict (event_id) do nothing",
        [event.id for event in events],
        [event.subject for event in events],
        [event.entity for event in events],
        [event.headers for event in events],
        [event.body for event in events],
    )


async def notify(connection: Connection, service: str) -> None:
    """Wake the service's relay, wherever it runs, when this transaction commits."""
    await connection.execute("select pg_notify($1, '')", channel(service))


async def unpublished(connection: Connection) -> int:
    """How many events wait for the relay."""
    return int(await connection.fetchval("select count(*) from outbox where published_at is null"))


async def waiting(connection: Connection, at_most: int, after: int = 0) -> list[Waiting]:
    """Events behind a position that wait for the relay, in their order."""
    rows = await connection.fetch(
        "select position, event_id, subject, entity, headers, body from outbox where published_at is null"
        " and position > $2 order by position limit $1",
        at_most,
        after,
    )
    return [
        Waiting(row["position"], Outgoing(row["event_id"], row["subject"], row["entity"], row["headers"], row["body"]))
        for row in rows
    ]


async def mark(connection: Connection, stored: Sequence[tuple[Waiting, PubAck]]) -> None:
    """Keep where events were stored, which ends their waiting."""
    await connection.execute(
        "update outbox set published_at = now(), stream = acked.stream, sequence = acked.sequence"
        " from unnest($1::bigint[], $2::text[], $3::bigint[]) as acked (position, stream, sequence)"
        " where outbox.position = acked.position",
        [row.position for row, _ in stored],
        [ack.stream for _, ack in stored],
        [ack.seq for _, ack in stored],
    )


async def lead(connection: Connection, service: str) -> bool:
    """Take the lock of the service's one relay, for as long as the connection lasts; False while another has it.

    What the session commits need not be on the disk: marks that a crash takes are made again, by publishing again under
    the same ids. So the commits of those who wait for their own do not queue for the disk behind them.
    """
    keeps_session(connection)
    await connection.execute("set synchronous_commit = off")
    return bool(await connection.fetchval("select pg_try_advisory_lock(hashtext($1))", f"outbox:{service}"))
