"""Feedback that an answer was routed wrongly becomes a correction, once its answer and itself are here in any order.

Of an answer the vectors and the digest of its last user turn are kept, not the text.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta

from fleet_events.v1 import FeedbackRecorded, GenerationRecorded
from fleet_kit.db import Connection
from lora_core.embedding_thread import EmbeddingThread
from services.router import correction_store, feedback_store
from services.router.correction_store import Correction
from services.router.feedback_store import RoutedAnswer
from services.router.metrics import Learned, count

USER = "user"


def query_of(event: GenerationRecorded) -> str:
    """What `auto` routed: the last user turn. Empty where it did not route, and where the event has no texts."""
    if not event.routed:
        return ""
    return next((turn.content.strip() for turn in reversed(event.messages) if turn.role == USER), "")


async def take_answer(connection: Connection, embedders: Sequence[EmbeddingThread], event: GenerationRecorded) -> None:
    """Keep the vectors of an answer's query, and use feedback that came before it."""
    if not (query := query_of(event)):
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
