"""What is in the database: one role and one schema a service, brought up to date by migrations."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import asyncpg

from fleet_cli.stack.errors import PartFailed
from fleet_cli.stack.postgres import DATABASE, postgres_url
from fleet_events.topology import STORING
from fleet_kit.migrate import MigrationFailed, migrate


def migrate_service(name: str, port: int, passwords: Mapping[str, str], database: str = DATABASE) -> None:
    """Bring one service's schema up to date, as its own role. Raises PartFailed with the migration tool's output."""
    if importlib.util.find_spec(f"services.{name}") is None:
        raise PartFailed(f"services.{name} cannot be imported; run this from an installation that has the services")
    try:
        migrate(name, postgres_url(name, passwords[name], port, database))
    except MigrationFailed as error:
        raise PartFailed(str(error)) from error


async def provision_database(port: int, passwords: Mapping[str, str], database: str = DATABASE) -> None:
    """Make the database, the vector extension, and each service's role and schema, closed to the others. Idempotent.

    `passwords` has one for each role, and that of the superuser `postgres`.
    """
    admin = await asyncpg.connect(postgres_url("postgres", passwords["postgres"], port, "postgres"))
    try:
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
            await admin.execute(await _filled(admin, "CREATE DATABASE %I", database))
        for role in STORING:
            if not await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                await admin.execute(await _filled(admin, "CREATE ROLE %I LOGIN", role))
            await admin.execute(await _filled(admin, "ALTER ROLE %I PASSWORD %L", role, passwords[role]))
            await admin.execute(await _filled(admin, "ALTER ROLE %I SET search_path = %I, public", role, role))
        await admin.execute(await _filled(admin, "REVOKE ALL ON DATABASE %I FROM PUBLIC", database))
        for role in STORING:
            await admin.execute(await _filled(admin, "GRANT CONNECT ON DATABASE %I TO %I", database, role))
    finally:
        await admin.close()
    inside = await asyncpg.connect(postgres_url("postgres", passwords["postgres"], port, database))
    try:
        await inside.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        for role in STORING:
            await inside.execute(await _filled(inside, "CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I", role, role))
    finally:
        await inside.close()


async def clone_database(admin_url: str, template: str, name: str) -> None:
    """Copy a database without connections: schemas, tables, rows and rights."""
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(await _filled(admin, "CREATE DATABASE %I TEMPLATE %I", name, template))
        await admin.execute(await _filled(admin, "REVOKE ALL ON DATABASE %I FROM PUBLIC", name))
        for role in STORING:
            await admin.execute(await _filled(admin, "GRANT CONNECT ON DATABASE %I TO %I", name, role))
    finally:
        await admin.close()


async def drop_database(admin_url: str, name: str) -> None:
    """Drop a database, and end the sessions in it."""
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(await _filled(admin, "DROP DATABASE IF EXISTS %I WITH (FORCE)", name))
    finally:
        await admin.close()


async def _filled(connection: asyncpg.Connection, statement: str, *values: str) -> str:
    """Names and passwords cannot be parameters of these statements, so the server itself quotes them."""
    return str(await connection.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, list(values)))
