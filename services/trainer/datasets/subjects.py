"""Whom records are about: people are kept as keyed digests of their names, and nothing is taken of forgotten ones."""

from fleet_kit.db import Connection
from services.trainer.datasets.store import subjects as store
from services.trainer.datasets.store.subjects import Recorded
from services.trainer.datasets.subject_digest import digest_of

__all__ = ["admit", "digest_of"]


async def admit(connection: Connection, name: str, record: Recorded) -> str | None:
    """Keep that a record is about a person. For a forgotten one returns the erasure, and the record may not be kept.

    Holds off requests to forget anybody until the transaction ends: what is committed before one is found by it. Of a
    refused record its message is kept in mind, for the erasure's worker to delete. "" is nobody.
    """
    if not name:
        return None
    subject = digest_of(await store.subject_key(connection), name)
    await store.lock_recording(connection)
    erasure_id = await store.note_late(connection, subject, record.domain)
    if erasure_id is None or record.sequence:
        await store.add_record(connection, subject, record)
    return erasure_id
