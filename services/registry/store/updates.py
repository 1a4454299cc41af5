"""What runs where, and which updates were recommended: one SQL statement a function, connection first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fleet_kit.db import Connection
from services.registry.store.listing import Domains


@dataclass(frozen=True, slots=True)
class Installed:
    """A version that is active or that replicas hold. `held_by` are their names."""

    adapter_id: str
    family_id: str
    held_by: tuple[str, ...]


async def installed(connection: Connection, domain: str | None, domains: Domains) -> list[Installed]:
    """Versions that are active or that a replica loaded and did not give up since."""
    rows = await connection.fetch(
        """
        select adapter_id, family_id, coalesce(
            array_agg(replica order by replica) filter (where replica is not null), '{}'
        ) as held_by
        from adapter left join replica using (adapter_id)
        where ($1::text is null or domain = $1) and ($2::text[] is null or domain = any($2))
          and (replica is null or unloaded_at is null or unloaded_at < last_loaded_at)
        group by adapter_id, family_id, active
        having active or count(replica) > 0
        order by adapter_id
        """,
        domain,
        domains,
    )
    return [Installed(row["adapter_id"], row["family_id"], tuple(row["held_by"])) for row in rows]


async def served_before(connection: Connection, family_id: str) -> frozenset[str]:
    """Versions of a family that were ever activated, or whose rollout was rolled back."""
    rows = await connection.fetch(
        """
        select distinct subject from audit join adapter on adapter_id = subject
        where family_id = $1 and action in ('activated', 'rollout_rolled_back')
        """,
        family_id,
    )
    return frozenset(row["subject"] for row in rows)


async def add_recommendation(
    connection: Connection, running: str, available: str, *, at: datetime, applied: bool, reason: str
) -> bool:
    """Keep a recommendation; False where these two versions have one already."""
    return bool(
        await connection.fetchval(
            """
            insert into update_recommendation (running, available, recommended_at, applied, reason)
            values ($1, $2, $3, $4, $5) on conflict do nothing returning true
            """,
            running,
            available,
            at,
            applied,
            reason,
        )
    )
