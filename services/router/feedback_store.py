"""SQL of routed answers and of feedback on them, one statement a function."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from fleet_kit.db import Connection
from services.router.correction_store import Correction
from services.router.evidence import Vectors
from services.router.store import as_bytes


@dataclass(frozen=True, slots=True)
class RoutedAnswer:
    """An answer that `auto` routed, feedback that an answer was routed wrongly, or both."""

    generation_id: str
    domain: str
    query_sha256: bytes | None
    """None: the answer is not here."""
    routed_wrongly: bool
    right_family: str
    given_by: str


async def save_answer(
    connection: Connection, generation_id: str, domain: str, query_sha256: bytes
) -> RoutedAnswer | None:
    """What is known of it now, locked until the transaction ends; None where its person is forgotten."""
    row = await connection.fetchrow(
        """
        INSERT INTO routed_answer (generation_id, domain, query_sha256) VALUES ($1, $2, $3)
        ON CONFLICT (generation_id) DO UPDATE
        SET domain = EXCLUDED.domain, query_sha256 = EXCLUDED.query_sha256
        WHERE NOT routed_answer.forgotten
        RETURNING generation_id, domain, query_sha256, routed_wrongly, right_family, given_by
        """,
        generation_id,
        domain,
        query_sha256,
    )
    return _answer(row)


async def save_feedback(
    connection: Connection, generation_id: str, right_family: str, given_by: str
) -> RoutedAnswer | None:
    """What is known of its answer now, locked until the transaction ends; None where its person is forgotten."""
    row = await connection.fetchrow(
        """
        INSERT INTO routed_answer (generation_id, routed_wrongly, right_family, given_by) VALUES ($1, true, $2, $3)
        ON CONFLICT (generation_id) DO UPDATE
        SET routed_wrongly = true, right_family = EXCLUDED.right_family, given_by = EXCLUDED.given_by
        WHERE NOT routed_answer.forgotten
        RETURNING generation_id, domain, query_sha256, routed_wrongly, right_family, given_by
        """,
        generation_id,
        right_family,
        given_by,
    )
    return _answer(row)


async def save_vector(connection: Connection, generation_id: str, embedded_by: str, vector: Vectors) -> None:
    await connection.execute(
        """
        INSERT INTO routed_answer_vector (generation_id, embedded_by, vector) VALUES ($1, $2, $3)
        ON CONFLICT (generation_id, embedded_by) DO UPDATE SET vector = EXCLUDED.vector
        """,
        generation_id,
        embedded_by,
        as_bytes(vector),
    )


async def copy_vectors(connection: Connection, one: Correction) -> None:
    """A correction gets the vectors of the answer that it came from."""
    await connection.execute(
        """
        INSERT INTO correction_vector (domain, query_sha256, embedded_by, vector)
        SELECT $1, $2, embedded_by, vector FROM routed_answer_vector WHERE generation_id = $3
        ON CONFLICT (domain, query_sha256, embedded_by) DO UPDATE SET vector = EXCLUDED.vector
        """,
        one.domain,
        one.key,
        one.generation_id,
    )


async def domain_of_family(connection: Connection, family: str) -> str | None:
    """None where the family has no live adapter."""
    found: str | None = await connection.fetchval("SELECT domain FROM live_route WHERE family = $1", family)
    return found


async def forget(connection: Connection, generation_ids: Sequence[str]) -> None:
    """Leave nothing of these answers but that they are forgotten."""
    await connection.execute(
        """
        INSERT INTO routed_answer (generation_id, forgotten) SELECT DISTINCT id, true FROM unnest($1::text[]) AS id
        ORDER BY id
        ON CONFLICT (generation_id) DO UPDATE SET domain = '', query_sha256 = NULL, routed_wrongly = false,
            right_family = '', given_by = '', forgotten = true, kept_at = now()
        """,
        list(generation_ids),
    )


async def count_held(connection: Connection, generation_ids: Sequence[str]) -> int:
    """Of how many of these answers something is kept, locked until the transaction ends."""
    rows = await connection.fetch(
        "SELECT FROM routed_answer WHERE generation_id = ANY ($1) AND NOT forgotten ORDER BY generation_id FOR UPDATE",
        list(generation_ids),
    )
    return len(rows)


async def delete_vectors(connection: Connection, generation_ids: Sequence[str]) -> int:
    """Returns how many."""
    status = await connection.execute(
        "DELETE FROM routed_answer_vector WHERE generation_id = ANY ($1)", list(generation_ids)
    )
    return int(status.rsplit(maxsplit=1)[-1])


async def delete_old(connection: Connection, age: timedelta) -> int:
    """Returns how many of them were feedback without its answer."""
    rows = await connection.fetch(
        """
        DELETE FROM routed_answer WHERE kept_at < now() - $1::interval
        RETURNING routed_wrongly AND query_sha256 IS NULL AS unused
        """,
        age,
    )
    return sum(row["unused"] for row in rows)


async def delete_beyond(connection: Connection, most: int) -> int:
    """Keep the newest; what is forgotten is kept for its time. Returns how many were feedback without its answer."""
    rows = await connection.fetch(
        """
        DELETE FROM routed_answer WHERE generation_id IN (
            SELECT generation_id FROM routed_answer WHERE NOT forgotten
            ORDER BY kept_at DESC, generation_id OFFSET $1
        )
        RETURNING routed_wrongly AND query_sha256 IS NULL AS unused
        """,
        most,
    )
    return sum(row["unused"] for row in rows)


def _answer(row: asyncpg.Record | None) -> RoutedAnswer | None:
    return RoutedAnswer(**row) if row else None
