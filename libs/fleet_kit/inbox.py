"""The inbox: an event takes effect at most once for each consumer, however often it is delivered.

An event is known by its source and its id. Rows of releases that kept the id alone have an empty source and count for
every source.
"""

from collections.abc import Collection, Sequence

from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Connection

__all__ = ["Key", "claim", "claim_all", "key", "release", "seen"]

Key = tuple[str, str]
"""What an event is known by: its id and its source."""


def key(event: Envelope) -> Key:
    """What the event is known by."""
    return event.id, event.source


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


async def claim_all(connection: Connection, consumer: str, events: Sequence[Envelope]) -> set[Key]:
    """Take many events for this transaction; returns those whose effect is not committed yet, each once.

    Second deliveries that run at the same time wait here for the commit of the first ones.
    """
    rows = await connection.fetch(
        "insert into inbox (consumer, event_id, source)"
        " select $1, given.event_id, given.source from unnest($2::text[], $3::text[]) as given (event_id, source)"
        " where not exists ("
        "  select from inbox as old where old.consumer = $1 and old.event_id = given.event_id and old.source = '')"
        " on conflict do nothing returning event_id, source",
        consumer,
        [event.id for event in events],
        [event.source for event in events],
    )
    return {(row["event_id"], row["source"]) for row in rows}


async def release(connection: Connection, consumer: str, claimed: Collection[Key]) -> None:
    """Give back events that this transaction took and has no effect of."""
    await connection.execute(
        "delete from inbox using unnest($2::text[], $3::text[]) as given (event_id, source)"
        " where inbox.consumer = $1 and inbox.event_id = given.event_id and inbox.source = given.source",
        consumer,
        [event_id for event_id, _ in claimed],
        [source for _, source in claimed],
    )


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
