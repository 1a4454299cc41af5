"""Every migration of every service, up, down and up again, on a database of its own."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from fleet_cli.stack import Fleet
from fleet_cli.stack.postgres import postgres_url
from fleet_cli.stack.schemas import migrate_service, provision_database
from fleet_events.topology import STORING
from fleet_kit.migrate import MigrationFailed, migrate, rollback

pytestmark = pytest.mark.integration

COLUMNS = """
    select table_name, column_name, data_type, is_nullable, column_default
    from information_schema.columns where table_schema = $1 order by 1, 2
"""
RULES = """
    select conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    from pg_constraint where connamespace = $1::regnamespace order by 1, 2
"""
INDEXES = "select tablename, indexname, indexdef from pg_indexes where schemaname = $1 order by 1, 2"


@pytest.mark.parametrize("service", STORING)
async def test_every_migration_can_be_taken_back_and_made_again(servers: Fleet, service: str) -> None:
    port, passwords, database = servers.ports["postgres"], servers.credentials.postgres, f"migrations_{service}"
    await provision_database(port, passwords, database)
    connection = await asyncpg.connect(postgres_url("postgres", passwords["postgres"], port, database))
    owner = postgres_url(service, passwords[service], port, database)

    async def shape() -> list[list[tuple[object, ...]]]:
        return [[tuple(row) for row in await connection.fetch(query, service)] for query in (COLUMNS, RULES, INDEXES)]

    try:
        await asyncio.to_thread(migrate_service, service, port, passwords, database)
        made = await shape()
        migrations = await connection.fetchval(f"select count(*) from {service}.schema_migrations")
        assert migrations > 1
        for _ in range(migrations):
            await asyncio.to_thread(rollback, service, owner)
        columns, *_ = await shape()
        assert {table for table, *_ in columns} == {"schema_migrations"}
        with pytest.raises(MigrationFailed, match=f"rollback of {service}"):
            await asyncio.to_thread(rollback, service, owner)
        await asyncio.to_thread(migrate_service, service, port, passwords, database)
        assert await shape() == made
    finally:
        await connection.close()
        admin = await asyncpg.connect(postgres_url("postgres", passwords["postgres"], port, "postgres"))
        await admin.execute(f"drop database {database} with (force)")
        await admin.close()


async def test_of_several_servers_the_one_that_takes_writes_is_migrated(servers: Fleet) -> None:
    port, passwords, database = servers.ports["postgres"], servers.credentials.postgres, "migrations_of_several"
    await provision_database(port, passwords, database)
    alone = postgres_url("registry", passwords["registry"], port, database)
    admin = await asyncpg.connect(postgres_url("postgres", passwords["postgres"], port, database))
    both = alone.replace(f":{port}/", f":1,127.0.0.1:{port}/") + "&target_session_attrs=read-write"
    try:
        await asyncio.to_thread(migrate, "registry", both)
        assert await admin.fetchval("select count(*) from registry.schema_migrations") > 1
        await admin.execute(f"alter role registry in database {database} set default_transaction_read_only = on")
        with pytest.raises(MigrationFailed, match=r"takes writes: 127\.0\.0\.1:1: .*Refused.*; 127"):
            await asyncio.to_thread(migrate, "registry", both)
    finally:
        await admin.execute(f"alter role registry in database {database} reset default_transaction_read_only")
        await admin.close()
        admin = await asyncpg.connect(postgres_url("postgres", passwords["postgres"], port, "postgres"))
        await admin.execute(f"drop database {database} with (force)")
        await admin.close()
