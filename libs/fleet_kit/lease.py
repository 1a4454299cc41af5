"""Leases: who works on a thing, for how long, and a token that fences the writes of earlier holders.

See Martin Kleppmann, "How to do distributed locking" (2016), on fencing tokens. Time is the database's.
"""

from dataclasses import dataclass
from datetime import timedelta

from fleet_kit.db import Connection
from fleet_kit.errors import LeaseLost

__all__ = ["Taken", "acquire", "check", "discard", "in_use", "progress", "release", "renew", "survived"]


@dataclass(frozen=True)
class Taken:
    """A lease that was taken."""

    token: int
    """Grows with each holder."""
    unanswered: int
    """How many holders before this one disappeared in a row: their process ended and released nothing."""


async def acquire(connection: Connection, name: str, holder: str, ttl: timedelta) -> Taken | None:
    """Take the lease if it is free; returns None while another holder is alive."""
    row = await connection.fetchrow(
        "insert into lease as held (name, holder, token, expires_at, released) values ($1, $2, 1, now() + $3, false)"
        " on conflict (name) do update set holder = $2, token = held.token + 1, expires_at = now() + $3,"
        " released = false,"
        " unanswered = held.unanswered + case when held.released or held.holder = $2 then 0 else 1 end"
        " where held.expires_at <= now() or held.holder = $2 returning token, unanswered",
        name,
        holder,
        ttl,
    )
    return None if row is None else Taken(row["token"], row["unanswered"])


async def in_use(connection: Connection, name: str) -> bool:
    """Whether another transaction has the lease's row locked now. If none has, this one has it from here on.

    For whoever holds a lock that the lease's holder may wait for: it must not wait for the lease itself.
    """
    return bool(
        await connection.fetchval(
            "with free as (select from lease where name = $1 for update skip locked)"
            " select exists (select from lease where name = $1) and not exists (select from free)",
            name,
        )
    )


async def renew(connection: Connection, name: str, token: int, ttl: timedelta) -> bool:
    """Hold on to the lease; False when another has it. A lease that only ran out is taken up again."""
    renewed = await connection.fetchval(
        "update lease set expires_at = now() + $3 where name = $1 and token = $2 returning true", name, token, ttl
    )
    return bool(renewed)


async def check(connection: Connection, name: str, token: int) -> None:
    """Lock the lease for this transaction; raises `LeaseLost` when the token is not the newest."""
    current = await connection.fetchval("select token from lease where name = $1 for update", name)
    if current != token:
        raise LeaseLost(f"lease {name} moved from token {token} to {current}")


async def release(connection: Connection, name: str, token: int) -> None:
    """Let the next worker begin at once: this one ends with an answer. The row stays, since its token must not fall."""
    await connection.execute(
        "update lease set expires_at = now(), released = true, unanswered = 0 where name = $1 and token = $2",
        name,
        token,
    )


async def discard(connection: Connection, name: str, token: int) -> None:
    """Delete the lease of work that ends in this transaction and is never done again, where no other ever held it: then
    there is no older token that a new row could take for its own."""
    await connection.execute("delete from lease where name = $1 and token = $2 and token = 1", name, token)


async def progress(connection: Connection, name: str, token: int) -> None:
    """The work has come further: holders that disappeared before do not count."""
    await connection.execute("update lease set unanswered = 0 where name = $1 and token = $2", name, token)


async def survived(connection: Connection, name: str, token: int) -> None:
    """A holder that lost the lease is alive: the later one counted it as gone."""
    await connection.execute(
        "update lease set unanswered = greatest(unanswered - 1, 0) where name = $1 and token > $2", name, token
    )
