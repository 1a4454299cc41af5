"""Whether what JetStream acknowledged is still stored, after another server process has taken over.

Rows are published again when the server may have lost them: a power cut takes what it had not flushed, and a store
restored from a backup lacks what came later. What is there after all is dropped by its Nats-Msg-Id or ignored by the
consumers' inboxes.
"""

from datetime import datetime, timedelta

import structlog
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from fleet_kit.db import Connection

__all__ = ["DURABLE_AFTER", "check", "note"]

log = structlog.get_logger()

DURABLE_AFTER = timedelta(seconds=150)
"""Longer than the server's `sync_interval` (two minutes by default): what was acknowledged earlier is on its disk."""


async def check(connection: Connection, jetstream: JetStreamContext, server: str) -> None:
    """Mark the rows as unpublished that may be lost.

    Args:
        connection: the relay's.
        jetstream: gives the state of each stream that rows were stored in.
        server: id of the server process that answers now. Another one than at the last check may have lost what its
            predecessor acknowledged.
    """
    for stream in await _streams(connection):
        try:
            info = await jetstream.stream_info(stream)
        except NotFoundError:
            continue  # it is not provisioned at present
        created = info.created or datetime.fromtimestamp(0).astimezone()
        async with connection.transaction():
            known = await connection.fetchrow("select server, created from outbox_check where stream = $1", stream)
            remade = known is not None and known["created"] not in (None, created)
            if known is None or (known["server"] == server and not remade):
                again = 0
            elif remade:
                again = await _all(connection, stream)
            else:
                again = await _newest(connection, stream, info.state.last_seq)
            await _remember(connection, stream, server, created)
        if again:
            log.warning("events_republished", stream=stream, events=again)


async def note(connection: Connection, stream: str, server: str) -> None:
    """Remember which server process acknowledged the first row of a stream."""
    await connection.execute(
        "insert into outbox_check (stream, server, checked_at) values ($1, $2, now()) on conflict do nothing",
        stream,
        server,
    )


async def _streams(connection: Connection) -> list[str]:
    rows = await connection.fetch("select distinct stream from outbox where published_at is not null")
    return [row["stream"] for row in rows if row["stream"] is not None]


async def _all(connection: Connection, stream: str) -> int:
    """The stream was made again: nothing that an earlier one held is in it."""
    return _count(
        await connection.execute(
            "update outbox set published_at = null where published_at is not null and stream = $1", stream
        )
    )


async def _newest(connection: Connection, stream: str, last_sequence: int) -> int:
    """Rows acknowledged so shortly before the last one that they may not have been flushed, and rows beyond the end."""
    return _count(
        await connection.execute(
            "update outbox set published_at = null where published_at is not null and stream = $1 and (sequence > $2"
            " or published_at > greatest("
            "  (select max(published_at) from outbox where stream = $1) - $3::interval,"
            "  (select checked_at - $3::interval from outbox_check where stream = $1)))",
            stream,
            last_sequence,
            DURABLE_AFTER,
        )
    )


async def _remember(connection: Connection, stream: str, server: str, created: datetime) -> None:
    await connection.execute(
        "insert into outbox_check (stream, server, created, checked_at) values ($1, $2, $3, now())"
        " on conflict (stream) do update set server = $2, created = $3, checked_at = now()",
        stream,
        server,
        created,
    )


def _count(status: str) -> int:
    """Rows of a command's status, for example `UPDATE 5`."""
    return int(status.rsplit(maxsplit=1)[-1])
