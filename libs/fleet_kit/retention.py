"""How long the kit's own rows are kept. The relay of a service sweeps them, a bounded batch at a time.

| table | kept |
|---|---|
| outbox | `KEEP_PUBLISHED` after its publication: longer than any `sync_interval`, see `outbox_check` |
| outbox | of an event that JetStream refused: `KEEP_REFUSED`, since its dead letter may hold a part of it only |
| inbox | of an event that its stream keeps for a time: until no delivery can bring it again, see `inbox_horizon` |
| inbox | of an event that its stream keeps for good: as long as that, since a durable made again reads it all |
| attempts | `KEEP_ATTEMPTS` after the last start |
| lease | `KEEP_LEASE` after its end: by then no process writes under an older token |
"""

from datetime import timedelta

from fleet_events.topology import DEAD_STREAM, consumers_of, durable_name
from fleet_kit.db import Connection

__all__ = ["SWEEP_SECONDS", "inbox_horizon", "sweep"]

SWEEP_SECONDS = 60.0
BATCH = 5000
"""Rows of one table that one sweep deletes at most: a few milliseconds of the relay's time."""

KEEP_PUBLISHED = timedelta(days=1)
KEEP_REFUSED = timedelta(days=90)
KEEP_ATTEMPTS = timedelta(days=7)
KEEP_LEASE = timedelta(days=90)
MARGIN = timedelta(days=30)
"""For a dead letter whose original was handled after all, since its end did not reach the server."""


def inbox_horizon(keep: timedelta) -> timedelta:
    """Age of an inbox row after which its event cannot come again, for an event that the stream keeps for `keep`.

    A replayed dead letter is another `keep` in the stream. However late that is: it goes to the consumer that gave the
    event up alone, and that one has no row.
    """
    return 2 * keep + MARGIN


async def sweep(connection: Connection, service: str) -> bool:
    """Delete a batch of what is too old from each table; returns whether there may be more."""
    deleted = [
        await _outbox(connection),
        await _attempts(connection),
        await _lease(connection),
        *[
            await _inbox(connection, durable_name(consumer, row), inbox_horizon(keep))
            for row, consumer in consumers_of(service)
            if (keep := row.keep or row.stream.max_age) is not None
        ],
    ]
    return any(count >= BATCH for count in deleted)


async def _outbox(connection: Connection) -> int:
    return _count(
        await connection.execute(
            "delete from outbox where position in"
            " (select position from outbox where published_at < now() - $1::interval"
            " and (stream is distinct from $3 or published_at < now() - $4::interval) order by published_at limit $2)",
            KEEP_PUBLISHED,
            BATCH,
            DEAD_STREAM,
            KEEP_REFUSED,
        )
    )


async def _inbox(connection: Connection, consumer: str, age: timedelta) -> int:
    return _count(
        await connection.execute(
            "delete from inbox where consumer = $1 and (event_id, source) in"
            " (select event_id, source from inbox where consumer = $1 and handled_at < now() - $2::interval"
            " order by handled_at limit $3)",
            consumer,
            age,
            BATCH,
        )
    )


async def _attempts(connection: Connection) -> int:
    return _count(
        await connection.execute(
            "delete from attempts where (consumer, message) in"
            " (select consumer, message from attempts where started_at < now() - $1::interval limit $2)",
            KEEP_ATTEMPTS,
            BATCH,
        )
    )


async def _lease(connection: Connection) -> int:
    return _count(
        await connection.execute(
            "delete from lease where name in (select name from lease where expires_at < now() - $1::interval limit $2)",
            KEEP_LEASE,
            BATCH,
        )
    )


def _count(status: str) -> int:
    """Rows of a command's status, for example `DELETE 5`."""
    return int(status.rsplit(maxsplit=1)[-1])
