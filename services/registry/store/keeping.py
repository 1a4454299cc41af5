"""Rows that keeping and sweeping read: one SQL statement a function, connection first."""

from __future__ import annotations

from datetime import datetime, timedelta

from fleet_kit.db import Connection
from services.registry.family import Adapter
from services.registry.store.versions import adapter_of


async def domains(connection: Connection) -> list[str]:
    """Domains that have versions."""
    rows = await connection.fetch("select distinct domain from family order by domain")
    return [row["domain"] for row in rows]


async def domain_adapters(connection: Connection, domain: str) -> list[Adapter]:
    """Every version of a domain."""
    rows = await connection.fetch("select * from adapter where domain = $1 order by position", domain)
    return [adapter_of(row) for row in rows]


async def last_used(connection: Connection, domain: str) -> dict[str, datetime]:
    """When each version of a domain last answered."""
    rows = await connection.fetch(
        "select adapter_id, max(last_used_at) as at from usage where domain = $1 group by adapter_id", domain
    )
    return {row["adapter_id"]: row["at"] for row in rows}


async def in_use(connection: Connection, domain: str) -> set[str]:
    """Versions with a part in a rollout that runs, or on their way to another base model."""
    rows = await connection.fetch(
        """
        select unnest(array[body->>'candidate_id', body->>'incumbent_id']) as adapter_id from rollout
        where domain = $1 and state = 'running'
        union
        select adapter_id from base_model_migration where domain = $1 and state = 'training'
        """,
        domain,
    )
    return {row["adapter_id"] for row in rows}


async def marked_objects(connection: Connection, grace: timedelta) -> frozenset[str]:
    """URIs that versions name which are not released, or were only within the grace time."""
    rows = await connection.fetch(
        """
        select distinct jsonb_path_query(made_of, '$.**.uri') #>> '{}' as uri from adapter
        where released_at is null or released_at > now() - $1::interval
        """,
        grace,
    )
    return frozenset(row["uri"] for row in rows)
