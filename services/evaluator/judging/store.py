"""SQL of exchanges with judges: one statement a function, connection first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from fleet_kit.blobs import BlobRef
from fleet_kit.db import Connection


@dataclass(frozen=True)
class Spent:
    """What an evaluation's judging took. cost is in the currency of the judge's prices, seconds in all requests."""

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0


async def answer_of(connection: Connection, evaluation_id: str, sample_id: str, request_sha256: str) -> BlobRef | None:
    found = await connection.fetchval(
        "select answer from judge_exchange where evaluation_id = $1 and sample_id = $2 and request_sha256 = $3",
        evaluation_id,
        sample_id,
        request_sha256,
    )
    return None if found is None else BlobRef.model_validate(found)


async def add_exchange(
    connection: Connection,
    evaluation_id: str,
    sample_id: str,
    *,
    request: BlobRef,
    answer: BlobRef,
    prompt_tokens: int,
    answer_tokens: int,
    cost: float,
    seconds: float,
) -> None:
    """Keep an exchange; the same request sent once more takes the later answer and is paid twice."""
    await connection.execute(
        "insert into judge_exchange as kept (evaluation_id, sample_id, request_sha256, answer_sha256, request, answer,"
        " prompt_tokens, answer_tokens, cost, seconds) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " on conflict (evaluation_id, sample_id, request_sha256) do update set answer_sha256 = $4, answer = $6,"
        " prompt_tokens = kept.prompt_tokens + $7, answer_tokens = kept.answer_tokens + $8,"
        " cost = kept.cost + $9, seconds = kept.seconds + $10, asked_at = now()",
        evaluation_id,
        sample_id,
        request.sha256,
        answer.sha256,
        request.model_dump(mode="json"),
        answer.model_dump(mode="json"),
        prompt_tokens,
        answer_tokens,
        cost,
        seconds,
    )


async def spent(connection: Connection, evaluation_id: str) -> Spent:
    row = await connection.fetchrow(
        "select count(*) as requests, coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,"
        " coalesce(sum(answer_tokens), 0)::bigint as answer_tokens, coalesce(sum(cost), 0) as cost,"
        " coalesce(sum(seconds), 0) as seconds from judge_exchange where evaluation_id = $1",
        evaluation_id,
    )
    return Spent(**dict(row)) if row else Spent()


async def exchanges(connection: Connection, evaluation_id: str) -> list[dict[str, object]]:
    """Every exchange of an evaluation with its content's references, in the order sent."""
    rows = await connection.fetch(
        "select sample_id, request, answer, prompt_tokens, answer_tokens, cost, seconds, asked_at from judge_exchange"
        " where evaluation_id = $1 order by asked_at, sample_id",
        evaluation_id,
    )
    return [dict(row) for row in rows]


async def delete_older(connection: Connection, keep: timedelta, limit: int) -> list[BlobRef]:
    """Delete at most so many exchanges that are older; returns their contents, two an exchange."""
    rows = await connection.fetch(
        "delete from judge_exchange where ctid in (select ctid from judge_exchange"
        " where asked_at < now() - $1::interval order by asked_at limit $2 for update skip locked)"
        " returning request, answer",
        keep,
        limit,
    )
    return [BlobRef.model_validate(row[name]) for row in rows for name in ("request", "answer")]


async def unreferenced(connection: Connection, contents: Sequence[BlobRef]) -> list[BlobRef]:
    """Those of the contents that no exchange has any more."""
    used = await connection.fetch(
        "select request_sha256 as sha256 from judge_exchange where request_sha256 = any($1)"
        " union select answer_sha256 from judge_exchange where answer_sha256 = any($1)",
        [blob.sha256 for blob in contents],
    )
    kept = {row["sha256"] for row in used}
    return list({blob.sha256: blob for blob in contents if blob.sha256 not in kept}.values())
