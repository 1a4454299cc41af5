"""SQL of live answers that were judged, and of what that cost: one statement a function."""

from __future__ import annotations

from datetime import timedelta

from fleet_kit.db import Connection
from services.evaluator.judging.store import Spent


async def is_judged(connection: Connection, generation_id: str) -> bool:
    return bool(
        await connection.fetchval("select exists (select from live_judgement where generation_id = $1)", generation_id)
    )


async def add_judgement(connection: Connection, generation_id: str) -> bool:
    """Keep that an answer is judged; False if it was before."""
    return bool(
        await connection.fetchval(
            "insert into live_judgement (generation_id) values ($1) on conflict do nothing returning true",
            generation_id,
        )
    )


async def add_exchange(
    connection: Connection,
    rollout_id: str,
    generation_id: str,
    *,
    prompt_tokens: int,
    answer_tokens: int,
    cost: float,
    seconds: float,
) -> None:
    """Keep what one request to a judge took; cost is in the currency of its prices."""
    await connection.execute(
        "insert into live_exchange (rollout_id, generation_id, prompt_tokens, answer_tokens, cost, seconds)"
        " values ($1, $2, $3, $4, $5, $6)",
        rollout_id,
        generation_id,
        prompt_tokens,
        answer_tokens,
        cost,
        seconds,
    )


async def spent(connection: Connection, rollout_id: str) -> Spent:
    """By the whole rollout, until now."""
    row = await connection.fetchrow(
        "select count(*) as requests, coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,"
        " coalesce(sum(answer_tokens), 0)::bigint as answer_tokens, coalesce(sum(cost), 0) as cost,"
        " coalesce(sum(seconds), 0) as seconds from live_exchange where rollout_id = $1",
        rollout_id,
    )
    return Spent(**dict(row)) if row else Spent()


async def delete_judgements(connection: Connection, keep: timedelta) -> None:
    """Delete those that are older."""
    await connection.execute("delete from live_judgement where judged_at < now() - $1::interval", keep)


async def delete_exchanges(connection: Connection, keep: timedelta) -> None:
    """Delete those that are older."""
    await connection.execute("delete from live_exchange where asked_at < now() - $1::interval", keep)
