"""Leases: who works on a thing, for how long, and a token that fences the writes of whoever had it before.

See Martin Kleppmann, "How to do distributed locking" (2016), on fencing tokens. Time is the database's.
"""

from datetime import timedelta

from fleet_kit.db import Connection
from fleet_kit.errors import LeaseLost

__all__ = ["acquire", "check", "release", "renew"]


async def acquire(connection: Connection, name: str, holder: str, ttl: timedelta) -> int | None:
    """Take the lease if nobody holds it; returns the fencing token, or None while another holder is alive."""
    token = await connection.fetchval(
        "insert into lease as held (name, holder, token, expires_at) values ($1, $2, 1, now() + $3)"
        " on conflict (name) do update set holder = $2, token = held.token + 1, expires_at = now() + $3"
        " where held.expires_at <= now() or held.holder = $2 returning token",
        name,
        holder,
        ttl,
    )
    return None if token is None else int(token)


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
    """Let the next worker begin at once; the row stays, since its token must never fall."""
    await connection.execute("update lease set expires_at = now() where name = $1 and token = $2", name, token)
