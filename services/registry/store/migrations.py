"""Migrations to other base models: one SQL statement a function, connection first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fleet_kit.db import Connection
from services.registry.store.listing import Domains


@dataclass(frozen=True, slots=True)
class Migration:
    """A version on its way to another base model. `state`: training, registered or failed."""

    migration_id: str
    adapter_id: str
    domain: str
    strategy: str
    from_base_model: str
    from_revision: str
    to_base_model: str
    to_revision: str
    state: str
    job_id: str | None
    new_adapter_id: str | None
    error: str
    reason: str
    requested_by: str
    requested_at: datetime
    ended_at: datetime | None


async def add_migration(connection: Connection, one: Migration) -> bool:
    """Keep a new migration; False where one of this version to this revision is under way."""
    return bool(
        await connection.fetchval(
            """
            insert into base_model_migration values
                ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
            on conflict (adapter_id, to_revision) where state = 'training' do nothing returning true
            """,
            one.migration_id,
            one.adapter_id,
            one.domain,
            one.strategy,
            one.from_base_model,
            one.from_revision,
            one.to_base_model,
            one.to_revision,
            one.state,
            one.job_id,
            one.new_adapter_id,
            one.error,
            one.reason,
            one.requested_by,
            one.requested_at,
            one.ended_at,
        )
    )


async def registered(connection: Connection, job_id: str, adapter_id: str) -> None:
    """The training of a migration, if it was one, has become a version; also where it had failed before."""
    await connection.execute(
        """
        update base_model_migration set state = 'registered', new_adapter_id = $2, error = '', ended_at = now()
        where job_id = $1
        """,
        job_id,
        adapter_id,
    )


async def failed(connection: Connection, job_id: str, error: str) -> None:
    """The training of a migration, if it was one, will not become a version."""
    await connection.execute(
        """
        update base_model_migration set state = 'failed', error = $2, ended_at = now()
        where job_id = $1 and state = 'training'
        """,
        job_id,
        error,
    )


async def find_migration(connection: Connection, migration_id: str) -> Migration | None:
    row = await connection.fetchrow("select * from base_model_migration where migration_id = $1", migration_id)
    return Migration(**dict(row)) if row else None


async def known_to(connection: Connection, adapter_id: str, to_revision: str) -> bool:
    """Whether a version was ever to be carried over to this revision."""
    return bool(
        await connection.fetchval(
            "select exists (select from base_model_migration where adapter_id = $1 and to_revision = $2)",
            adapter_id,
            to_revision,
        )
    )


async def migrations(connection: Connection, domain: str | None, domains: Domains, limit: int) -> list[Migration]:
    """Newest first."""
    rows = await connection.fetch(
        """
        select * from base_model_migration
        where ($1::text is null or domain = $1) and ($2::text[] is null or domain = any($2))
        order by requested_at desc limit $3
        """,
        domain,
        domains,
        limit,
    )
    return [Migration(**dict(row)) for row in rows]


async def followers(connection: Connection) -> list[str]:
    """Active versions of domains whose policy has them follow their base model."""
    rows = await connection.fetch(
        """
        select adapter_id from adapter join policy using (domain)
        where active and (body->>'follow_base_model')::boolean order by adapter_id
        """
    )
    return [row["adapter_id"] for row in rows]
