"""Connections to databases that recipes query: never our own, never with rights that a recipe must not have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import structlog

from fleet_kit.db import Connection, Pool
from services.trainer.datasets.settings import SqlSource

if TYPE_CHECKING:  # generic in asyncpg-stubs alone
    Opened: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Opened = asyncpg.Connection

log = structlog.get_logger()

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class UnfitSource(Exception):
    """A database that no recipe may query over this connection, with what to change."""


@dataclass(frozen=True)
class Identity:
    """Which database a connection leads to, under any name and address, and as whom.

    `cluster` is PostgreSQL's own identifier, which replicas share; where it may not be read, when the server started.
    """

    cluster: str
    database: int
    role: str


@asynccontextmanager
async def open_source(source: SqlSource, own: Pool, *, seconds: float) -> AsyncIterator[Opened]:
    """A connection in a read-only transaction; its running query is cancelled at the end.

    Args:
        own: connections to the service's own database.
        seconds: the server's time limit of one statement. A query can lift it, so the caller keeps a deadline too.

    Raises:
        UnfitSource: it is the service's own database or role, or its role may do more than read.
        OSError, TimeoutError, asyncpg.PostgresError: it cannot be reached.
    """
    connection: Opened = await asyncpg.connect(
        source.dsn.get_secret_value(),
        timeout=_CONNECT_SECONDS,
        server_settings={
            "default_transaction_read_only": "on",
            "statement_timeout": str(round(seconds * 1000)),
            "application_name": "lorafleet-trainer",
        },
    )
    try:
        async with own.acquire(timeout=5) as ours:
            here = await identity(ours)
        await _check(connection, here)
        # Never committed. Read-only from its first statement on, a transaction cannot be made anything else.
        await connection.execute("begin transaction isolation level repeatable read read only")
        yield connection
    finally:
        await _close(connection)


async def identity(connection: Connection) -> Identity:
    """Where this connection leads."""
    row = await connection.fetchrow(
        """
        select current_user::text as role, has_function_privilege('pg_control_system()', 'execute') as readable,
            (select oid from pg_database where datname = current_database()) as database,
            pg_postmaster_start_time()::text as started
        """
    )
    if row is None:
        raise LookupError("the database does not identify itself")
    cluster = row["started"]
    if row["readable"]:
        cluster = str(await connection.fetchval("select system_identifier from pg_control_system()"))
    return Identity(cluster, int(row["database"]), row["role"])


async def _check(connection: Opened, own: Identity) -> None:
    there = await identity(connection)
    if there.cluster == own.cluster and there.database == own.database:
        raise UnfitSource("it is the fleet's own database; give the source a database of its own")
    if there.cluster == own.cluster and there.role == own.role:
        raise UnfitSource(f"role {there.role!r} is the trainer's own; give the source a role that may only read it")
    rights = await connection.fetch(
        """
        select case when rolsuper then 'superuser' when rolreplication then 'replication' when rolcreaterole
            then 'createrole' when rolbypassrls then 'bypassrls' end as held
        from pg_roles where rolname = current_user
        union all
        select rolname from pg_roles
        where rolname in ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
            and pg_has_role(current_user, oid, 'member')
        """
    )
    if held := ", ".join(sorted({row["held"] for row in rights if row["held"]})):
        raise UnfitSource(f"role {there.role!r} has {held}; give the source a role that may only read its tables")
    writable = await connection.fetchval(
        """
        select min(relation.oid::regclass::text)
        from pg_class relation join pg_namespace schema on schema.oid = relation.relnamespace
        where relation.relkind in ('r', 'p') and schema.nspname !~ '^(pg_|information_schema$)'
            and has_table_privilege(relation.oid, 'insert, update, delete, truncate')
        """
    )
    if writable:
        # Its read-only transaction holds; a role without the right would hold beside it.
        log.warning("sql_source_role_may_write", role=there.role, table=writable)


async def _close(connection: Opened) -> None:
    try:
        # Cancels what the server still runs for us, then waits for its answer.
        await connection.close(timeout=_CLOSE_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("sql_source_connection_cut", reason=repr(error))
        connection.terminate()


async def check_sources(sources: dict[str, SqlSource], own: Pool) -> None:
    """Open each source once; one that cannot be reached now is checked before each of its queries.

    Raises:
        UnfitSource: with the name of the setting at fault.
    """

    async def check(name: str, source: SqlSource) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS), open_source(source, own, seconds=_CONNECT_SECONDS):
                pass
        except UnfitSource as error:
            raise UnfitSource(f"LORAFLEET_SQL_SOURCES: {name}: {error}") from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("sql_source_not_checked", source=name, reason=type(error).__name__)

    await asyncio.gather(*(check(name, source) for name, source in sources.items()))
