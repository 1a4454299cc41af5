"""Connections to PostgreSQL: one pool a service, its schema first in the search path."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

__all__ = ["Connection", "Pool", "connect_pool", "leaves_a_standby"]

if TYPE_CHECKING:  # the classes are generic in asyncpg-stubs alone
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


def connect_pool(service: str, url: str, size: int) -> Pool:
    """A pool that opens connections when they are first wanted, so that a service starts before its database."""
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        init=_prepare,
        timeout=5,
        command_timeout=60,
        max_inactive_connection_lifetime=60,
        server_settings={"search_path": f"{service},public", "application_name": service},
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
