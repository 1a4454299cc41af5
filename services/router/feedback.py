"""Feedback that an answer was routed wrongly becomes a correction, once its answer and itself are here in any order.

Of an answer the vectors and the digest of its last user turn are kept, not the text.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog
from pydantic import BaseModel

from fleet_events.v1 import FeedbackRecorded, GenerationRecorded, Turn
from fleet_kit.blobs import Blobs
from fleet_kit.db import Connection
from fleet_kit.errors import BlobCorrupt, BlobMissing
from lora_core.embedding_thread import EmbeddingThread
from services.router import correction_store, feedback_store
from services.router.correction_store import Correction
from services.router.feedback_store import RoutedAnswer
from services.router.metrics import Learned, count

log = structlog.get_logger()

USER = "user"
LARGEST_CONTENT = 16 * 1024**2
"""Bytes of the texts of an answer, as the trainer takes them."""


def query_of(turns: Iterable[Turn]) -> str:
    """The last user turn of a conversation, stripped; empty where there is none."""
    return next((turn.content.strip() for turn in reversed(list(turns)) if turn.role == USER), "")


class _Apart(BaseModel):
    """The texts of an answer that are too large for its event."""

    generation_id: str
    messages: list[Turn]


async def _routed_turns(event: GenerationRecorded, blobs: Blobs) -> Sequence[Turn]:
    """What `auto` routed; empty where it did not, and where the texts are gone."""
    if not event.routed or event.content is None:
        return event.messages if event.routed else ()
    try:
        if event.content.bytes > LARGEST_CONTENT:
            raise ValueError(f"{event.content.bytes} bytes, expected at most {LARGEST_CONTENT}")
        apart = _Apart.model_validate_json(await blobs.get(event.content))
        if apart.generation_id != event.generation_id:
            raise ValueError(f"it is of answer {apart.generation_id!r}")
    except BlobMissing:
        return ()  # aged, or its person was forgotten
    except (BlobCorrupt, ValueError) as error:
        log.warning("texts_of_an_answer_are_of_no_use", uri=event.content.uri, reason=str(error))
        return ()
    return apart.messages


async def take_answer(
    connection: Connection, embedders: Sequence[EmbeddingThread], event: GenerationRecorded, blobs: Blobs
) -> None:
    """Keep the vectors of an answer's query, and use feedback that came before it."""
    if not (query := query_of(await _routed_turns(event, blobs))):
        return
    digest = hashlib.sha256(query.encode()).digest()
    known = await feedback_store.save_answer(connection, event.generation_id, event.domain, digest)
    if known is None:
        return
    for embedder in embedders:
        [vector] = await embedder.embed([query])
        await feedback_store.save_vector(connection, event.generation_id, embedder.identity, vector)
    if known.routed_wrongly:
        count(await _learn(connection, known))


async def take_feedback(connection: Connection, event: FeedbackRecorded) -> None:
    """Use feedback where its answer is here; else it waits. The newest on an answer counts."""
    known = await feedback_store.save_feedback(connection, event.generation_id, event.right_family, event.by)
    count(Learned.FORGOTTEN if known is None else await _learn(connection, known))


async def forget(connection: Connection, generation_ids: Sequence[str]) -> int:
    """Delete what these answers and the feedback on them left, and take nothing about them any more.

    Returns how many rows held something: answers or feedback, vectors, corrections.
    """
    held = await feedback_store.count_held(connection, generation_ids)
    await feedback_store.forget(connection, generation_ids)
    held += await feedback_store.delete_vectors(connection, generation_ids)
    return held + await _take_back(connection, generation_ids)


async def expire(connection: Connection, age: timedelta, most: int) -> None:
    """Delete what waited for too long, and the oldest beyond so many. Corrections stay."""
    unused = await feedback_store.delete_old(connection, age)
    unused += await feedback_store.delete_beyond(connection, most)
    count(Learned.EXPIRED, unused)


async def _learn(connection: Connection, one: RoutedAnswer) -> Learned:
    if one.query_sha256 is None:
        return Learned.WAITS
    domain: str | None = one.domain
    if one.right_family:
        domain = await feedback_store.domain_of_family(connection, one.right_family)
    if domain is None:
        return Learned.NO_FAMILY
    await _take_back(connection, [one.generation_id])
    taught = Correction(domain, "", one.right_family or None, one.given_by, one.generation_id, one.query_sha256)
    if not await correction_store.save_correction(connection, taught):
        return Learned.BY_HAND
    await feedback_store.copy_vectors(connection, taught)
    await correction_store.notify_taught(connection, domain)
    return Learned.TAUGHT


async def _take_back(connection: Connection, generation_ids: Sequence[str]) -> int:
    """Delete the corrections that these answers made; returns how many."""
    domains = await correction_store.delete_corrections_of(connection, generation_ids)
    for domain in set(domains):
        await correction_store.notify_taught(connection, domain)
    return len(domains)
