"""The inbox: an event takes effect at most once for each consumer, however often it is delivered.

An event is known by its source and its id. Rows of releases that kept the id alone have an empty source and count for
every source.
"""

from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Connection

__all__ = ["claim", "seen"]


async def claim(connection: Connection, consumer: str, event: Envelope) -> bool:
    """Take the event for this transaction; False when its effect is already committed.

    A second delivery that runs at the same time waits here for the first one's commit.
    """
    taken = await connection.fetchval(
        "insert into inbox (consumer, event_id, source) select $1, $2, $3"
        " where not exists (select from inbox where consumer = $1 and event_id = $2 and source = '')"
        " on conflict do nothing returning true",
        consumer,
        event.id,
        event.source,
    )
    return bool(taken)


async def seen(connection: Connection, consumer: str, event: Envelope) -> bool:
    """Whether the event's effect is committed."""
    return bool(
        await connection.fetchval(
            "select true from inbox where consumer = $1 and event_id = $2 and source in ($3, '')",
            consumer,
            event.id,
            event.source,
        )
    )
