"""Rows that the past of a family is read from: one SQL statement a function, connection first."""

from __future__ import annotations

from pydantic import TypeAdapter

from fleet_kit.db import Connection
from services.registry.family import Evaluation
from services.registry.store.listing import Trail

_EVALUATION = TypeAdapter(Evaluation)


async def family_domain(connection: Connection, family_id: str) -> str | None:
    """The domain of a family; None for one that does not exist."""
    found: str | None = await connection.fetchval("select domain from family where family_id = $1", family_id)
    return found


async def family_trail(connection: Connection, family_id: str) -> list[Trail]:
    """The audit trail of all versions of a family, in the order of its commits."""
    rows = await connection.fetch(
        """
        select audit.subject, audit.domain, at, actor, action, reason, before, after, revision
        from audit join adapter on adapter.adapter_id = audit.subject
        where adapter.family_id = $1 order by audit.position
        """,
        family_id,
    )
    return [Trail(**dict(row)) for row in rows]


async def family_evaluations(connection: Connection, family_id: str) -> dict[str, list[Evaluation]]:
    """Every score of each version of a family, oldest first."""
    rows = await connection.fetch(
        """
        select evaluation.adapter_id, evaluation.body from evaluation join adapter using (adapter_id)
        where adapter.family_id = $1 order by evaluation.scored_at
        """,
        family_id,
    )
    found: dict[str, list[Evaluation]] = {}
    for row in rows:
        found.setdefault(row["adapter_id"], []).append(_EVALUATION.validate_python(row["body"]))
    return found
