"""SQL of recorded answers: one statement a function, connection first."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from fleet_events import v1
from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Connection
from services.trainer.datasets.answers.answer import RecordedAnswer, Turns, prompt_key


async def lock(connection: Connection, generation_ids: Sequence[str]) -> None:
    """Let one transaction at a time take in an answer, or feedback on it. Several ids come in one order for all."""
    for generation_id in generation_ids:
        await connection.execute("select pg_advisory_xact_lock(hashtext('answer'), hashtext($1))", generation_id)


async def add_answer(
    connection: Connection, event: v1.GenerationRecorded, turns: Turns, answer: str, envelope: Envelope
) -> None:
    """Keep an answer unless it is there."""
    await connection.execute(
        """
        insert into answers (
            generation_id, domain, adapter_id, artifact_sha256, mix, base_model, base_model_revision, requested_model,
            routed, fallback, sampling, finish_reason, turns, prompt_key, answer, consent, masked, subject, caller,
            comparison_id, content_uri, stream_sequence, answered_at
        ) values (
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23
        ) on conflict do nothing
        """,
        event.generation_id,
        event.domain,
        event.adapter_id,
        event.artifact_sha256,
        [one.model_dump(by_alias=False) for one in event.mix],
        event.base_model.name,
        event.base_model.revision,
        event.requested_model,
        event.routed,
        event.fallback,
        event.sampling.model_dump(by_alias=False),
        event.finish_reason,
        turns,
        prompt_key(turns),
        answer,
        event.consent.model_dump(by_alias=False),
        event.masked,
        event.subject,
        event.caller,
        event.comparison_id,
        event.content.uri if event.content else "",
        envelope.sequence,
        event.answered_at or envelope.time,
    )


async def find_answer(connection: Connection, generation_id: str) -> RecordedAnswer | None:
    """An answer by its id."""
    row = await connection.fetchrow("select * from answers where generation_id = $1", generation_id)
    return _answer(row) if row else None


async def find_answers(connection: Connection, generation_ids: Sequence[str]) -> list[RecordedAnswer]:
    """Those of these ids that are recorded."""
    rows = await connection.fetch("select * from answers where generation_id = any($1)", generation_ids)
    return [_answer(row) for row in rows]


async def list_answers(connection: Connection, domains: Sequence[str] | None, limit: int) -> list[RecordedAnswer]:
    """The newest answers of these domains (None: of all)."""
    rows = await connection.fetch(
        "select * from answers where $1::text[] is null or domain = any($1) order by recorded_at desc limit $2",
        domains,
        limit,
    )
    return [_answer(row) for row in rows]


async def remove_old_answers(connection: Connection, kept: timedelta, at_most: int) -> int:
    """Forget answers that were recorded so long ago; returns how many."""
    rows = await connection.fetch(
        """
        delete from answers where generation_id in (
            select generation_id from answers where recorded_at < now() - $1::interval
            limit $2 for update skip locked
        ) returning generation_id
        """,
        kept,
        at_most,
    )
    return len(rows)


def _answer(row: asyncpg.Record) -> RecordedAnswer:
    return RecordedAnswer(
        generation_id=row["generation_id"],
        domain=row["domain"],
        turns=tuple((role, content) for role, content in row["turns"]),
        answer=row["answer"],
        adapter_id=row["adapter_id"],
        consent=row["consent"],
        masked=tuple(row["masked"]),
        subject=row["subject"],
        comparison_id=row["comparison_id"],
        content_uri=row["content_uri"],
        stream_sequence=row["stream_sequence"],
        answered_at=row["answered_at"],
    )
