"""SQL of the router: one statement a function."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_kit.db import Connection

from .domain import Route

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """An adapter and the best cosine similarity of its texts with the query."""

    adapter_id: str
    family: str
    domain: str
    score: float


@dataclass(frozen=True, slots=True)
class LiveRoute:
    """An adapter that queries are routed to now."""

    adapter_id: str
    family: str
    domain: str
    version: str
    description: str
    revision: int
    texts: int


async def held(connection: Connection, adapter_id: str) -> Route | None:
    """What the index holds of an adapter, locked until the transaction ends (texts are left out)."""
    row = await connection.fetchrow(
        """
        SELECT adapter_id, family, domain, version, description, activated, deactivated
        FROM route WHERE adapter_id = $1 FOR UPDATE
        """,
        adapter_id,
    )
    return Route(**row) if row else None


async def lock_index(connection: Connection) -> None:
    """Keeps every handler out until the transaction ends; queries go on reading."""
    await connection.execute("LOCK TABLE route IN EXCLUSIVE MODE")


async def save_route(connection: Connection, route: Route, embedded_by: str) -> None:
    await connection.execute(
        """
        INSERT INTO route (adapter_id, family, domain, version, description, activated, deactivated, embedded_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (adapter_id) DO UPDATE SET
            version = EXCLUDED.version, description = EXCLUDED.description,
            activated = EXCLUDED.activated, deactivated = EXCLUDED.deactivated, embedded_by = EXCLUDED.embedded_by
        """,
        route.adapter_id,
        route.family,
        route.domain,
        route.version,
        route.description,
        route.activated,
        route.deactivated,
        embedded_by,
    )


async def mark_deactivated(connection: Connection, route: Route) -> None:
    """Saves a deactivation and nothing else, as a tombstone where the adapter is not known."""
    await connection.execute(
        """
        INSERT INTO route (adapter_id, family, domain, deactivated) VALUES ($1, $2, $3, $4)
        ON CONFLICT (adapter_id) DO UPDATE SET deactivated = EXCLUDED.deactivated
        """,
        route.adapter_id,
        route.family,
        route.domain,
        route.deactivated,
    )


async def delete_texts(connection: Connection, adapter_id: str) -> None:
    await connection.execute("DELETE FROM route_text WHERE adapter_id = $1", adapter_id)


async def save_texts(connection: Connection, adapter_id: str, texts: Sequence[str], vectors: Vectors) -> None:
    """``vectors``: [number of texts, dimensions], normalised."""
    await connection.execute(
        """
        INSERT INTO route_text (adapter_id, ordinal, text, embedding)
        SELECT $1, item.ordinal - 1, item.text, item.embedding::vector
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS item (text, embedding, ordinal)
        """,
        adapter_id,
        list(texts),
        [as_literal(vector) for vector in vectors],
    )


async def empty_index(connection: Connection) -> None:
    await connection.execute("DELETE FROM route")


async def best_matches(
    connection: Connection,
    query: NDArray[np.float32],
    *,
    embedded_by: str,
    domains: Sequence[str] | None,
    threshold: float,
    k: int,
) -> list[Match]:
    """The ``k`` live adapters nearest to the query, best first; ``domains`` None reaches all of them.

    Exact, not approximate: the index holds tens of texts for each of some hundreds of adapters. The query is read in
    a query of its own: from the sixth call on PostgreSQL plans without its value and would read it again for each row.
    """
    rows = await connection.fetch(
        """
        SELECT adapter_id, family, domain, max(1 - (embedding <=> (SELECT $1::text::vector))) AS score
        FROM live_route JOIN route_text USING (adapter_id)
        WHERE embedded_by = $2 AND ($3::text[] IS NULL OR domain = ANY ($3))
        GROUP BY adapter_id, family, domain
        HAVING max(1 - (embedding <=> (SELECT $1::text::vector))) >= $4
        ORDER BY score DESC, adapter_id
        LIMIT $5
        """,
        as_literal(query),
        embedded_by,
        None if domains is None else list(domains),
        threshold,
        k,
    )
    return [Match(**row) for row in rows]


async def live_routes(connection: Connection, domains: Sequence[str] | None) -> list[LiveRoute]:
    rows = await connection.fetch(
        """
        SELECT adapter_id, family, domain, version, description, revision, count(ordinal)::int AS texts
        FROM live_route LEFT JOIN route_text USING (adapter_id)
        WHERE $1::text[] IS NULL OR domain = ANY ($1)
        GROUP BY adapter_id, family, domain, version, description, revision
        ORDER BY adapter_id
        """,
        None if domains is None else list(domains),
    )
    return [LiveRoute(**row) for row in rows]


async def embedded_otherwise(connection: Connection, embedded_by: str) -> dict[str, list[str]]:
    """Texts of the adapters whose vectors come from another embedding model."""
    rows = await connection.fetch(
        """
        SELECT adapter_id, array_agg(text ORDER BY ordinal) AS texts
        FROM route JOIN route_text USING (adapter_id)
        WHERE embedded_by <> $1
        GROUP BY adapter_id
        """,
        embedded_by,
    )
    return {row["adapter_id"]: row["texts"] for row in rows}


async def mark_embedded(connection: Connection, adapter_id: str, embedded_by: str) -> None:
    await connection.execute("UPDATE route SET embedded_by = $2 WHERE adapter_id = $1", adapter_id, embedded_by)


def as_literal(vector: NDArray[np.float32]) -> str:
    """pgvector's text form; asyncpg has no binary form for it."""
    return "[" + ",".join(map(str, vector.tolist())) + "]"
