"""Starts without an answer: how an event that kills its consumer (memory, a crash in native code) is found out.

JetStream's delivery count also grows with every answer "later": it does not tell a killed consumer from one that waits
for its database. Here only a start whose process then disappeared is counted. A message's first delivery costs nothing:
starts are recorded from the second one on. Long work is counted by its lease instead, see `lease`.
"""

from fleet_kit.db import Connection

__all__ = ["LIMIT", "begin", "end", "given_up", "suspect"]

LIMIT = 5
"""Consecutive starts without an answer after which an event becomes a dead letter."""


async def suspect(connection: Connection, consumer: str, message: str, holder: str) -> bool:
    """Whether another process began with the message and did not answer: it was killed by it, or beside it."""
    return bool(
        await connection.fetchval(
            "select true from attempts where consumer = $1 and message = $2 and holder <> $3",
            consumer,
            message,
            holder,
        )
    )


async def begin(connection: Connection, consumer: str, message: str, holder: str) -> int:
    """Record a start; returns how many recorded ones before it were never answered.

    Args:
        connection: in no transaction, so that the record outlives this process.
        consumer: name of the durable.
        message: names the stored message. Not the event's id, which the publisher chooses.
        holder: this process. One that begins again has not been killed, so its own earlier start does not count.
    """
    return int(
        await connection.fetchval(
            "insert into attempts as known (consumer, message, holder) values ($1, $2, $3)"
            " on conflict (consumer, message) do update set holder = $3, started_at = now(),"
            " unanswered = known.unanswered + case when known.holder = $3 then 0 else 1 end"
            " returning unanswered",
            consumer,
            message,
            holder,
        )
    )


async def end(connection: Connection, consumer: str, message: str) -> None:
    """The start was answered, with whichever result."""
    await connection.execute("delete from attempts where consumer = $1 and message = $2", consumer, message)


def given_up(starts: int) -> str:
    """The reason that the dead letter carries."""
    return (
        f"began {starts} times and was never answered: handling it ends its process. "
        "The process's log and its exit status (137: out of memory) show why"
    )
