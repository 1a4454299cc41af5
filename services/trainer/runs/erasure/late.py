"""Records that arrive about people, before and after those are forgotten."""

import structlog

from fleet_events.topology import row_of
from fleet_events.v1 import ErasureQueued, FeedbackRecorded, GenerationRecorded, PreferenceRecorded, SampleRecorded
from fleet_kit.transaction import Transaction
from services.trainer.datasets.store.subjects import Recorded, RecordedKind
from services.trainer.datasets.subjects import admit

log = structlog.get_logger()


async def admitted(
    event: SampleRecorded | PreferenceRecorded | FeedbackRecorded | GenerationRecorded,
    kind: RecordedKind,
    record_id: str,
    tx: Transaction,
) -> bool:
    """Whether a record may be kept, which then is known to be about its person.

    The message about a forgotten one is deleted by the erasure's worker, after this transaction has committed: deleted
    within it, a message whose transaction fails would be gone with nobody told.
    """
    sequence = tx.cause.sequence if tx.cause else 0
    stream = row_of(type(event)).stream.name if sequence else ""
    erasure_id = await admit(tx.connection, event.subject, Recorded(event.domain, kind, record_id, stream, sequence))
    if erasure_id is None:
        return True
    log.info("record_of_forgotten_subject_refused", domain=event.domain, kind=kind, erasure=erasure_id)
    await tx.emit(ErasureQueued(erasure_id=erasure_id, domain=event.domain or "*"), entity=erasure_id)
    return False
