"""SQL of feedback on answers: one statement a function, connection first."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from fleet_kit.db import Connection
from services.trainer.datasets.answers.answer import AnswerFeedback, RecordedAnswer, State

NOT_RECORDED = (
    "the answer was not recorded: the domain's policy permits none of it (record_answers), it was not sampled, held "
    "personal data, or had left the replica that gave it"
)
TOO_MANY = "more feedback waits for its answer than may"
TAKEN_BACK = "its rater preferred the other answer later"


async def put(connection: Connection, given: AnswerFeedback) -> AnswerFeedback | None:
    """Keep feedback beside what the same person told of the same answer before; returns both together.

    Of two ratings, and of two corrections, the one given later stays, in any order of arrival; what only one of the
    two has is kept. A preference takes back the opposite one of the same person; None for one of which the opposite was
    given later.
    """
    row = await connection.fetchrow(
        """
        insert into answer_feedback (
            generation_id, rater, preferred_over, domain, rating, correction, subject, caller, source, stream_sequences,
            given_at, state
        ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'waiting')
        on conflict (generation_id, rater, preferred_over) do update set
            rating = case when excluded.given_at >= answer_feedback.given_at
                then coalesce(excluded.rating, answer_feedback.rating)
                else coalesce(answer_feedback.rating, excluded.rating) end,
            correction = case when excluded.given_at >= answer_feedback.given_at
                then coalesce(nullif(excluded.correction, ''), answer_feedback.correction)
                else coalesce(nullif(answer_feedback.correction, ''), excluded.correction) end,
            given_at = greatest(excluded.given_at, answer_feedback.given_at),
            domain = excluded.domain, source = excluded.source,
            stream_sequences = answer_feedback.stream_sequences || excluded.stream_sequences,
            received_at = now(), state = 'waiting', reason = ''
        returning *
        """,
        given.generation_id,
        given.rater,
        given.preferred_over,
        given.domain,
        given.rating,
        given.correction,
        given.subject,
        given.caller,
        given.source,
        given.stream_sequences,
        given.given_at,
    )
    if row is None:
        raise LookupError("the row was not written")
    kept = _feedback(row)
    if kept.preferred_over and not await _takes_back(connection, kept):
        await settle(connection, kept, State.UNUSABLE, TAKEN_BACK)
        return None
    return kept


async def _takes_back(connection: Connection, given: AnswerFeedback) -> bool:
    """Whether a preference is newer than the opposite one of its rater, which it then takes back."""
    newer = await connection.fetchval(
        """
        with older as (
            update answer_feedback set state = 'unusable', reason = $5
            where generation_id = $1 and rater = $2 and preferred_over = $3 and given_at <= $4
        )
        select true from answer_feedback
        where generation_id = $1 and rater = $2 and preferred_over = $3 and given_at > $4
        """,
        given.preferred_over,
        given.rater,
        given.generation_id,
        given.given_at,
        TAKEN_BACK,
    )
    return not newer


async def lock_unused(connection: Connection, generation_id: str) -> list[AnswerFeedback]:
    """Feedback on an answer that it waits for, or waited for, locked: of two answers the later one uses it."""
    rows = await connection.fetch(
        """
        select * from answer_feedback where (generation_id = $1 or preferred_over = $1)
            and (state = 'waiting' or (state = 'unusable' and reason = any($2)))
        order by given_at, generation_id, rater, preferred_over for update
        """,
        generation_id,
        [NOT_RECORDED, TOO_MANY],
    )
    return [_feedback(row) for row in rows]


async def settle(connection: Connection, given: AnswerFeedback, state: State, reason: str = "") -> None:
    """What became of it."""
    await connection.execute(
        """
        update answer_feedback set state = $4, reason = $5
        where generation_id = $1 and rater = $2 and preferred_over = $3
        """,
        given.generation_id,
        given.rater,
        given.preferred_over,
        state,
        reason,
    )


async def mean_rating(connection: Connection, generation_id: str) -> float:
    """Over all who rated an answer."""
    return float(
        await connection.fetchval(
            """
            select avg(rating) from answer_feedback
            where generation_id = $1 and state = 'used' and rating is not null
            """,
            generation_id,
        )
    )


async def preferred_pairs(connection: Connection, rater: str, answer: RecordedAnswer) -> list[tuple[str, str]]:
    """(better, worse) of all answers to the conversation of this one in its domain that one rater has compared."""
    rows = await connection.fetch(
        """
        select given.generation_id, given.preferred_over from answer_feedback given
        join answers using (generation_id)
        where answers.prompt_key = $1 and answers.domain = $2 and given.rater = $3 and given.state = 'used'
            and given.preferred_over <> ''
        """,
        answer.prompt_key,
        answer.domain,
        rater,
    )
    return [(row["generation_id"], row["preferred_over"]) for row in rows]


async def give_up_waiting(connection: Connection, waited: timedelta, most: int) -> int:
    """Feedback whose answer has not come in so long, or that is more than may wait, is unusable; returns how many."""
    rows = await connection.fetch(
        """
        with numbered as (
            select generation_id, rater, preferred_over, received_at < now() - $1::interval as late,
                row_number() over (order by received_at desc) as place
            from answer_feedback where state = 'waiting'
        )
        update answer_feedback given set state = 'unusable', reason = case when numbered.late then $3 else $4 end
        from numbered
        where (numbered.late or numbered.place > $2) and given.state = 'waiting'
            and given.generation_id = numbered.generation_id and given.rater = numbered.rater
            and given.preferred_over = numbered.preferred_over
        returning given.generation_id
        """,
        waited,
        most,
        NOT_RECORDED,
        TOO_MANY,
    )
    return len(rows)


async def remove_old_feedback(connection: Connection, kept: timedelta, at_most: int) -> int:
    """Forget feedback that was received so long ago; returns how many."""
    rows = await connection.fetch(
        """
        delete from answer_feedback where (generation_id, rater, preferred_over) in (
            select generation_id, rater, preferred_over from answer_feedback where received_at < now() - $1::interval
            limit $2 for update skip locked
        ) returning generation_id
        """,
        kept,
        at_most,
    )
    return len(rows)


async def list_feedback(
    connection: Connection, domains: Sequence[str] | None, state: State | None, limit: int
) -> list[AnswerFeedback]:
    """The newest feedback on answers of these domains (None: of all), of one state or of any."""
    rows = await connection.fetch(
        """
        select * from answer_feedback
        where ($1::text[] is null or domain = any($1)) and ($2::text is null or state = $2)
        order by received_at desc limit $3
        """,
        domains,
        state,
        limit,
    )
    return [_feedback(row) for row in rows]


async def count_feedback(connection: Connection) -> dict[str, int]:
    """How much feedback is in each state that any is in."""
    rows = await connection.fetch("select state, count(*) as given from answer_feedback group by state")
    return {row["state"]: row["given"] for row in rows}


def _feedback(row: asyncpg.Record) -> AnswerFeedback:
    return AnswerFeedback(
        generation_id=row["generation_id"],
        rater=row["rater"],
        preferred_over=row["preferred_over"],
        domain=row["domain"],
        rating=row["rating"],
        correction=row["correction"],
        subject=row["subject"],
        caller=row["caller"],
        source=row["source"],
        stream_sequences=tuple(row["stream_sequences"]),
        given_at=row["given_at"],
        state=State(row["state"]),
        reason=row["reason"],
    )
