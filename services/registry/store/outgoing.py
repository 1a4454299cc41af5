"""What the registry has committed and the bus has not acknowledged. One SQL statement a function."""

from __future__ import annotations

from fleet_kit.db import Connection


async def waits(connection: Connection, entity: str) -> bool:
    """Whether an event about an entity is still to be published."""
    return bool(
        await connection.fetchval(
            "select exists (select from outbox where entity = $1 and published_at is null)", entity
        )
    )
