"""The inbox: an event takes effect at most once for each consumer, however often it is delivered."""

from fleet_kit.db import Connection

__all__ = ["claim", "seen"]


async def claim(connection: Connection, consumer: str, event_id: str) -> bool:
    """Take the event for this transaction; False when its effect is already committed.

    A second delivery that runs at the same time waits here for the first one's commit.
    """
    taken = await connection.fetchval(
        "insert into inbox (consumer, event_id) values ($1, $2) on conflict do nothing returning true",
        consumer,
        event_id,
    )
    return bool(taken)


async def seen(connection: Connection, consumer: str, event_id: str) -> bool:
    """Whether the event's effect is committed."""
    return bool(
        await connection.fetchval(
            "select true from inbox where consumer = $1 and event_id = $2",
            consumer,
            event_id,
        )
    )
