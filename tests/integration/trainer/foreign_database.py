"""A database that is not the fleet's, on the test's PostgreSQL server, with a role of its own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from fleet_cli.stack import Fleet


def url_of(servers: Fleet, *, role: str, password: str, database: str) -> str:
    """Connection string of a role for a database of the test's server."""
    parts = urlsplit(servers.info.database_admin_url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{address}", path=f"/{database}"))


@asynccontextmanager
async def foreign_database(servers: Fleet, name: str) -> AsyncIterator[str]:
    """A database `name` and its owner; yields the owner's connection string."""
    database = role = f"{name}_{secrets.token_hex(4)}"
    password = secrets.token_hex(8)
    admin = await asyncpg.connect(servers.info.database_admin_url)
    await admin.execute(f"create role {role} login password '{password}'")
    await admin.execute(f"create database {database} owner {role}")
    try:
        yield url_of(servers, role=role, password=password, database=database)
    finally:
        await admin.execute(f"drop database {database} with (force)")
        await admin.execute(f"drop role {role}")
        await admin.close()
