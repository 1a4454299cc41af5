"""Answers of people who had their records erased: one SQL statement a function, connection first."""

from __future__ import annotations

from collections.abc import Sequence

from fleet_kit.db import Connection


async def lock_forgotten(connection: Connection) -> None:
    """Until the transaction ends nothing is kept about an answer by others, and nothing is forgotten by others."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('registry.forgotten', 125))")


async def lock_kept(connection: Connection) -> None:
    """Until the transaction ends nothing is forgotten."""
    await connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('registry.forgotten', 125))")


async def is_forgotten(connection: Connection, generation_id: str) -> bool:
    return bool(
        await connection.fetchval("select exists (select from forgotten where generation_id = $1)", generation_id)
    )


async def forgotten_of(connection: Connection, generation_ids: Sequence[str]) -> set[str]:
    """Those of these answers about which nothing is taken any more."""
    rows = await connection.fetch("select generation_id from forgotten where generation_id = any($1)", generation_ids)
    return {row["generation_id"] for row in rows}


async def forget(connection: Connection, erasure_id: str, generation_ids: Sequence[str]) -> None:
    """Take nothing about these answers from now on."""
    await connection.execute(
        "insert into forgotten (generation_id, erasure_id) select unnest($2::text[]), $1 on conflict do nothing",
        erasure_id,
        generation_ids,
    )


async def delete_feedback(connection: Connection, generation_ids: Sequence[str]) -> int:
    """Delete what people said of these answers."""
    return _count(await connection.execute("delete from feedback where generation_id = any($1)", generation_ids))


async def delete_preferences(connection: Connection, generation_ids: Sequence[str]) -> int:
    """Delete which of two answers people preferred, where one of the two is of these."""
    return _count(
        await connection.execute(
            "delete from preference where first_answer = any($1) or second_answer = any($1)", generation_ids
        )
    )


async def delete_answers(connection: Connection, generation_ids: Sequence[str]) -> int:
    """Delete who asked for these answers and which adapters gave them."""
    return _count(await connection.execute("delete from answer where generation_id = any($1)", generation_ids))


async def mark_learned(
    connection: Connection, adapter_id: str, erasure_id: str, *, retire_when_replaced: bool = False
) -> bool:
    """Keep that a version learned from records that were erased; whether that is new."""
    status = await connection.execute(
        """
        insert into learned_from_erased (adapter_id, erasure_id, retire_when_replaced) values ($1, $2, $3)
        on conflict do nothing
        """,
        adapter_id,
        erasure_id,
        retire_when_replaced,
    )
    return _count(status) == 1


async def replaced(connection: Connection, adapter_ids: Sequence[str], serving: str) -> dict[str, str]:
    """Those of these versions that are to be retired now that another one serves: version → erasure.

    An erasure of records that the serving version learned from as well retires nothing.
    """
    rows = await connection.fetch(
        """
        select adapter_id, min(erasure_id) as erasure_id from learned_from_erased learned
        where adapter_id = any($1) and retire_when_replaced and not exists (
            select from learned_from_erased also where also.adapter_id = $2 and also.erasure_id = learned.erasure_id
        )
        group by adapter_id order by adapter_id
        """,
        adapter_ids,
        serving,
    )
    return {row["adapter_id"]: row["erasure_id"] for row in rows}


async def erasures_of(connection: Connection, adapter_id: str) -> tuple[str, ...]:
    """Erasures of records that a version learned from, oldest first."""
    rows = await connection.fetch(
        "select erasure_id from learned_from_erased where adapter_id = $1 order by at, erasure_id", adapter_id
    )
    return tuple(row["erasure_id"] for row in rows)


def _count(status: str) -> int:
    return int(status.rsplit(maxsplit=1)[-1])
