"""Connections to PostgreSQL: one pool a service, its schema first in the search path."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from fleet_kit import db_hosts

__all__ = ["Connection", "Pool", "connect_pool", "keeps_session", "leaves_a_standby"]

if TYPE_CHECKING:  # the classes are generic in asyncpg-stubs alone
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool


_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""The server ends the session of a machine that vanished after 25 s, and with it the locks of its relay and turns."""


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


_CHANGED_SESSIONS: set[int] = set()
"""Server processes whose sessions hold what outlives a transaction."""


def keeps_session(connection: Connection) -> None:
    """Tell the pool that the session gets what outlives a transaction (a lock, a setting, a listener): it ends when the
    connection goes back. That costs a round trip, which other connections are spared."""
    _CHANGED_SESSIONS.add(connection.get_server_pid())


async def _reset(connection: Connection) -> None:
    # asyncpg has rolled back what was open.
    if (process := connection.get_server_pid()) in _CHANGED_SESSIONS:
        _CHANGED_SESSIONS.discard(process)
        await connection.execute(connection.get_reset_query())


def connect_pool(service: str, url: str, size: int) -> Pool:
    """A pool that opens connections when they are first wanted, so that a service starts before its database.

    A connection goes back with its session as it is, unless `keeps_session` was called for it.
    """
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        connect=db_hosts.connect,
        init=_prepare,
        reset=_reset,
        timeout=5,
        command_timeout=60,
        max_inactive_connection_lifetime=60,
        server_settings={"search_path": f"{service},public", "application_name": service} | _KEEPALIVE,
    )
    if pool is None:
        raise RuntimeError("asyncpg made no pool")
    return pool


@asynccontextmanager
async def leaves_a_standby(pool: Pool) -> AsyncIterator[None]:
    """Have the pool open new connections once the server turns out to be read-only; raises what is raised within.

    A server that was demoted keeps its connections: only new ones lead to the server that took over.
    """
    try:
        yield
    except asyncpg.ReadOnlySQLTransactionError:
        await pool.expire_connections()
        raise
