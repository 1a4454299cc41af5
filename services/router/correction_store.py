"""SQL of what people taught, one statement a function."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet_kit.db import Connection
from services.router.evidence import Vectors
from services.router.store import as_bytes, from_bytes


@dataclass(frozen=True, slots=True)
class Correction:
    """The correction of a query of a domain; `family` None: no adapter is to answer it."""

    domain: str
    query: str
    family: str | None
    taught_by: str
    generation_id: str = ""
    """The answer that feedback named as routed wrongly; empty for what was taught by hand."""
    query_sha256: bytes | None = None
    """Where the query itself is not kept, which is then empty."""

    @property
    def key(self) -> bytes:
        """Digest of the query."""
        return self.query_sha256 or hashlib.sha256(self.query.encode()).digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """A correction and when it was made."""

    correction: Correction
    taught_at: datetime


async def notify_taught(connection: Connection, domain: str) -> None:
    await connection.execute("SELECT pg_notify('taught', $1)", domain)


async def taught(connection: Connection, one: Correction) -> bool:
    """Whether a query's correction is still there; locked until the transaction ends."""
    found = await connection.fetchval(
        "SELECT true FROM correction WHERE domain = $1 AND query_sha256 = $2 FOR UPDATE", one.domain, one.key
    )
    return bool(found)


async def save_correction(connection: Connection, one: Correction) -> bool:
    """False where the query was taught by hand and this is from feedback, which does not replace it."""
    saved = await connection.fetchval(
        """
        INSERT INTO correction (domain, query_sha256, query, family, taught_by, generation_id)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (domain, query_sha256) DO UPDATE SET query = EXCLUDED.query, family = EXCLUDED.family,
            taught_by = EXCLUDED.taught_by, generation_id = EXCLUDED.generation_id, taught_at = now()
        WHERE EXCLUDED.generation_id = '' OR correction.generation_id <> ''
        RETURNING true
        """,
        one.domain,
        one.key,
        one.query,
        one.family,
        one.taught_by,
        one.generation_id,
    )
    return bool(saved)


async def save_correction_vector(connection: Connection, one: Correction, embedded_by: str, vector: Vectors) -> None:
    await connection.execute(
        """
        INSERT INTO correction_vector (domain, query_sha256, embedded_by, vector) VALUES ($1, $2, $3, $4)
        ON CONFLICT (domain, query_sha256, embedded_by) DO UPDATE SET vector = EXCLUDED.vector
        """,
        one.domain,
        one.key,
        embedded_by,
        as_bytes(vector),
    )


async def corrections(
    connection: Connection, embedded_by: str, domains: Sequence[str] | None
) -> list[tuple[str, str | None, Vectors]]:
    """(domain, family, vector) of what was taught, in these domains or in all."""
    rows = await connection.fetch(
        """
        SELECT domain, family, vector FROM correction JOIN correction_vector USING (domain, query_sha256)
        WHERE embedded_by = $1 AND ($2::text[] IS NULL OR domain = ANY ($2)) ORDER BY domain, query_sha256
        """,
        embedded_by,
        None if domains is None else list(domains),
    )
    return [(row["domain"], row["family"], from_bytes(row["vector"])) for row in rows]


async def corrections_lacking_vectors(connection: Connection, embedded_by: str) -> list[Correction]:
    """Those whose query is kept: what came from feedback ends with the models that made its vectors."""
    rows = await connection.fetch(
        """
        SELECT domain, query, family, taught_by FROM correction WHERE query <> '' AND NOT EXISTS (
            SELECT FROM correction_vector AS made
            WHERE made.domain = correction.domain AND made.query_sha256 = correction.query_sha256
                AND made.embedded_by = $1
        )
        """,
        embedded_by,
    )
    return [Correction(**row) for row in rows]


async def forget_corrections(connection: Connection, age: timedelta) -> None:
    await connection.execute("DELETE FROM correction WHERE taught_at < now() - $1::interval", age)


async def newest_corrections(connection: Connection, domains: Sequence[str] | None, most: int) -> list[Kept]:
    """Of these domains (None: of all), newest first."""
    rows = await connection.fetch(
        """
        SELECT domain, query, family, taught_by, generation_id, query_sha256, taught_at FROM correction
        WHERE $1::text[] IS NULL OR domain = ANY ($1) ORDER BY taught_at DESC, query_sha256 LIMIT $2
        """,
        None if domains is None else list(domains),
        most,
    )
    return [
        Kept(
            Correction(
                row["domain"], row["query"], row["family"], row["taught_by"], row["generation_id"], row["query_sha256"]
            ),
            row["taught_at"],
        )
        for row in rows
    ]


async def delete_correction(connection: Connection, domain: str, key: bytes) -> bool:
    """Whether there was one."""
    found = await connection.fetchval(
        "DELETE FROM correction WHERE domain = $1 AND query_sha256 = $2 RETURNING true", domain, key
    )
    return bool(found)


async def delete_corrections_of(connection: Connection, generation_ids: Sequence[str]) -> list[str]:
    """Delete what feedback on these answers taught; returns the domain of each."""
    rows = await connection.fetch(
        "DELETE FROM correction WHERE generation_id <> '' AND generation_id = ANY ($1) RETURNING domain",
        list(generation_ids),
    )
    return [row["domain"] for row in rows]
