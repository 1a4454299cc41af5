"""Answers and feedback come in, in any order: what both together make of it becomes live records, once."""

import json

from fleet_events import v1
from fleet_kit.blobs import Blobs
from fleet_kit.db import Connection
from fleet_kit.errors import Refused
from fleet_kit.transaction import Transaction
from services.trainer.datasets.answers import derivation
from services.trainer.datasets.answers.answer import (
    AnswerFeedback,
    RecordedAnswer,
    State,
    Turns,
    feedback_of,
)
from services.trainer.datasets.dataset import InvalidSample, Sample
from services.trainer.datasets.store import answer_feedback as feedback_store
from services.trainer.datasets.store import answer_records as record_store
from services.trainer.datasets.store import answers as answer_store

LONGEST_ID = 500
LARGEST_CONTENT = 16 * 1024**2
"""Bytes of the texts of an answer."""
INFERENCE = "lorafleet/inference"


async def take_answer(event: v1.GenerationRecorded, tx: Transaction, blobs: Blobs) -> None:
    """Keep an answer, and use the feedback that came before it.

    Raises:
        Refused: its id or its texts are too large, or its object is no such content.
    """
    if len(event.generation_id) > LONGEST_ID:
        raise Refused(f"generation_id has {len(event.generation_id)} characters, expected at most {LONGEST_ID}")
    turns, text = await _texts(event, blobs)
    await answer_store.lock(tx.connection, [event.generation_id])
    await answer_store.add_answer(tx.connection, event, turns, text, tx.envelope)
    for one in await feedback_store.lock_unused(tx.connection, event.generation_id):
        await _use(tx.connection, one)


async def take_feedback(event: v1.FeedbackRecorded, tx: Transaction) -> None:
    """Keep feedback, and use it where its answers are here; else it waits for them.

    Raises:
        Refused: an id is too long, or the exchange that it brings itself is nothing that can be trained on.
    """
    if max(len(event.generation_id), len(event.subject or event.by)) > LONGEST_ID:
        raise Refused(f"generation_id, subject and by may have at most {LONGEST_ID} characters")
    envelope = tx.envelope
    if event.domain and event.prompt and event.completion:
        try:
            Sample(event.domain, event.prompt, event.completion).check()
        except InvalidSample as error:
            raise Refused(str(error)) from error
    given = feedback_of(event, envelope.source, envelope.sequence, envelope.time)
    await answer_store.lock(tx.connection, sorted({event.generation_id, *(one.preferred_over for one in given)} - {""}))
    for one in given:
        kept = await feedback_store.put(tx.connection, one)
        if kept is None:
            continue  # an older opinion of a pair than the one that is held
        if event.domain and event.prompt and event.completion and not one.preferred_over:
            await _opinion(tx.connection, kept, _answer_in(event, envelope.sequence, one))
        else:
            await _use(tx.connection, kept)


async def _use(connection: Connection, given: AnswerFeedback) -> None:
    answer = await answer_store.find_answer(connection, given.generation_id)
    other = await answer_store.find_answer(connection, given.preferred_over) if given.preferred_over else None
    if answer is None or (given.preferred_over and other is None):
        if not given.domain and given.source == INFERENCE:
            # Inference names the domain of every answer that can be recorded.
            await feedback_store.settle(
                connection, given, State.UNUSABLE, "the base model's answer is no domain's data"
            )
        return
    domain = given.domain or ("" if given.source == INFERENCE else answer.domain)
    if domain != answer.domain:
        reason = f"it is of domain {given.domain!r}, the answer is of {answer.domain!r}"
        await feedback_store.settle(connection, given, State.UNUSABLE, reason)
    elif other is not None:
        await _preference(connection, given, answer, other)
    else:
        await _opinion(connection, given, answer)


async def _opinion(connection: Connection, given: AnswerFeedback, answer: RecordedAnswer) -> None:
    try:
        derivation.opinion(answer, given.rater, given.rating, given.correction)
    except InvalidSample as error:
        await feedback_store.settle(connection, given, State.UNUSABLE, str(error))
        return
    await feedback_store.settle(connection, given, State.USED)
    rating = None if given.rating is None else await feedback_store.mean_rating(connection, given.generation_id)
    derived = derivation.opinion(answer, given.rater, rating, given.correction)
    await record_store.put_samples(connection, derived.samples, given.given_at)
    await record_store.put_preferences(connection, derived.preferences)
    await record_store.remove_former_correction(connection, answer.generation_id, given.rater, derived)


async def _preference(
    connection: Connection, given: AnswerFeedback, better: RecordedAnswer, worse: RecordedAnswer
) -> None:
    try:
        found = derivation.preference(better, worse, given.rater)
        opposite = derivation.preference(worse, better, given.rater)
    except InvalidSample as error:
        await feedback_store.settle(connection, given, State.UNUSABLE, str(error))
        return
    await record_store.remove_preference(connection, opposite)
    await record_store.put_preferences(connection, [found])
    await feedback_store.settle(connection, given, State.USED)
    pairs = await feedback_store.preferred_pairs(connection, given.rater, better)
    answers = {
        one.generation_id: one
        for one in await answer_store.find_answers(connection, sorted({name for pair in pairs for name in pair}))
    }
    await record_store.remove_ranking(connection, better, given.rater)
    if ranking := derivation.ranking(answers, pairs, given.rater):
        await record_store.add_ranking(connection, ranking)


def _answer_in(event: v1.FeedbackRecorded, sequence: int, given: AnswerFeedback) -> RecordedAnswer:
    """The answer as the feedback itself brings it."""
    return RecordedAnswer(
        generation_id=event.generation_id,
        domain=event.domain,
        turns=(("user", event.prompt),),
        answer=event.completion,
        adapter_id=event.adapter_id,
        consent={},
        masked=(),
        subject=event.subject,
        comparison_id="",
        content_uri="",
        stream_sequence=sequence,
        answered_at=given.given_at,
    )


async def _texts(event: v1.GenerationRecorded, blobs: Blobs) -> tuple[Turns, str]:
    if event.content is None:
        return tuple((turn.role, turn.content) for turn in event.messages), event.answer
    if event.content.bytes > LARGEST_CONTENT:
        raise Refused(f"content has {event.content.bytes} bytes, expected at most {LARGEST_CONTENT}")
    try:
        content = json.loads(await blobs.get(event.content))
        if content["generation_id"] != event.generation_id:
            raise ValueError("of another answer")
        return tuple((str(one["role"]), str(one["content"])) for one in content["messages"]), str(content["answer"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"content {event.content.uri}: {error!r}, expected generation_id, messages and answer") from error
