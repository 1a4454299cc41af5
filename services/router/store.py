"""SQL of the router: one statement a function. Vectors are float32, little-endian, row after row."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from fleet_events.v1 import RoutingProfile
from fleet_kit.db import Connection
from services.router.domain import Route
from services.router.evidence import Evidence, Kind, Vectors


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
    """Keeps every handler out until the transaction ends; queries still read."""
    await connection.execute("LOCK TABLE route IN EXCLUSIVE MODE")


async def save_route(connection: Connection, route: Route) -> None:
    await connection.execute(
        """
        INSERT INTO route (adapter_id, family, domain, version, description, activated, deactivated, profile)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (adapter_id) DO UPDATE SET
            version = EXCLUDED.version, description = EXCLUDED.description,
            activated = EXCLUDED.activated, deactivated = EXCLUDED.deactivated, profile = EXCLUDED.profile
        """,
        route.adapter_id,
        route.family,
        route.domain,
        route.version,
        route.description,
        route.activated,
        route.deactivated,
        route.profile and route.profile.model_dump(mode="json"),
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


async def save_texts(connection: Connection, adapter_id: str, texts: Sequence[str]) -> None:
    await connection.execute(
        """
        INSERT INTO route_text (adapter_id, ordinal, text)
        SELECT $1, item.ordinal - 1, item.text FROM unnest($2::text[]) WITH ORDINALITY AS item (text, ordinal)
        """,
        adapter_id,
        list(texts),
    )


async def delete_vectors(connection: Connection, adapter_id: str) -> None:
    await connection.execute("DELETE FROM route_vectors WHERE adapter_id = $1", adapter_id)


async def save_evidence(connection: Connection, adapter_id: str, embedded_by: str, evidence: Evidence) -> None:
    await connection.execute(
        """
        INSERT INTO route_vectors (adapter_id, embedded_by, evidence, dimension, vectors, nearness)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (adapter_id, embedded_by) DO UPDATE SET evidence = EXCLUDED.evidence,
            dimension = EXCLUDED.dimension, vectors = EXCLUDED.vectors, nearness = EXCLUDED.nearness
        """,
        adapter_id,
        embedded_by,
        evidence.kind.value,
        evidence.vectors.shape[1],
        as_bytes(evidence.vectors),
        evidence.nearness.tolist(),
    )


async def empty_index(connection: Connection) -> None:
    await connection.execute("DELETE FROM route")


async def all_live_evidence(
    connection: Connection, embedded_by: str, at_a_time: int
) -> AsyncIterator[list[tuple[LiveRoute, Evidence | None]]]:
    """Live adapters with their vectors of one embedding model, a few at a time; inside a transaction."""
    cursor = await connection.cursor(
        """
        SELECT live.adapter_id, family, domain, version, description, revision,
            (SELECT count(*)::int FROM route_text AS own WHERE own.adapter_id = live.adapter_id) AS texts,
            evidence, dimension, vectors, nearness
        FROM live_route AS live
        LEFT JOIN route_vectors AS made ON made.adapter_id = live.adapter_id AND made.embedded_by = $1
        """,
        embedded_by,
    )
    while rows := await cursor.fetch(at_a_time):
        yield [_with_evidence(row) for row in rows]


async def live_evidence(
    connection: Connection, embedded_by: str, families: Sequence[str]
) -> list[tuple[LiveRoute, Evidence | None]]:
    """The live adapters of these families with their vectors of one embedding model."""
    rows = await connection.fetch(
        """
        SELECT live.adapter_id, family, domain, version, description, revision,
            (SELECT count(*)::int FROM route_text AS own WHERE own.adapter_id = live.adapter_id) AS texts,
            evidence, dimension, vectors, nearness
        FROM live_route AS live
        LEFT JOIN route_vectors AS made ON made.adapter_id = live.adapter_id AND made.embedded_by = $1
        WHERE family = ANY ($2::text[])
        """,
        embedded_by,
        list(families),
    )
    return [_with_evidence(row) for row in rows]


def _with_evidence(row: asyncpg.Record) -> tuple[LiveRoute, Evidence | None]:
    route = LiveRoute(**{name: row[name] for name in LiveRoute.__slots__})
    if row["vectors"] is None:
        return route, None
    vectors = from_bytes(row["vectors"]).reshape(-1, row["dimension"])
    return route, Evidence(Kind(row["evidence"]), vectors, np.array(row["nearness"], dtype=np.float32))


async def lacking_vectors(connection: Connection, embedded_by: str) -> list[Route]:
    """Routable adapters that have a text or a profile and no vectors of this embedding model, with their texts."""
    rows = await connection.fetch(
        """
        SELECT adapter_id, family, domain, version, description, activated, deactivated, profile,
            (SELECT array_agg(text ORDER BY ordinal) FROM route_text AS own WHERE own.adapter_id = route.adapter_id)
                AS texts
        FROM route
        WHERE activated > deactivated AND NOT EXISTS (
            SELECT FROM route_vectors AS made WHERE made.adapter_id = route.adapter_id AND made.embedded_by = $1
        ) AND (profile IS NOT NULL OR EXISTS (SELECT FROM route_text AS own WHERE own.adapter_id = route.adapter_id))
        ORDER BY adapter_id
        """,
        embedded_by,
    )
    return [
        Route(
            **{
                **row,
                "texts": tuple(row["texts"] or ()),
                "profile": row["profile"] and RoutingProfile.model_validate(row["profile"]),
            }
        )
        for row in rows
    ]


async def notify_changed(connection: Connection, family: str) -> None:
    """The notification that a change of `route` sends by itself, for changes beside it."""
    await connection.execute("SELECT pg_notify('route', $1)", family)


def as_bytes(vectors: Vectors) -> bytes:
    return vectors.astype("<f4").tobytes()


def from_bytes(stored: bytes) -> Vectors:
    return np.frombuffer(stored, dtype="<f4").astype(np.float32)
