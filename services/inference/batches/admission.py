"""`admit`: a new batch is written only where its domains have room, however many replicas take one at once."""

import time
from collections import Counter
from typing import Final

from pydantic import BaseModel

from fleet_kit.key_value import WrittenMeanwhile
from services.inference.batches.records import BatchRecord
from services.inference.batches.store import BatchStore
from services.inference.errors import Busy, Conflict

_KEY: Final = "admission"
PENDING_SECONDS: Final = 60.0
"""From when on a batch that was admitted and not written is none: the replica that admitted it died in between."""
_TRIES: Final = 20


class _Pending(BaseModel):
    """A batch that was admitted; its record may not be there yet. at: Unix seconds."""

    key: str
    domains: frozenset[str]
    at: float


class _Admitted(BaseModel):
    pending: list[_Pending] = []


async def admit(batch: BatchRecord, store: BatchStore, most: int) -> None:
    """Write the batch, unless a domain that its owner reaches has `most` that have not ended.

    Each admission writes one key of the bucket over the revision that it has counted with, so of two that come at once
    the second one counts again, with the first among those that are pending.

    Raises:
        Conflict: a domain has too many.
        Busy: too many came at once; and what the bus raises.
    """
    mine = _Pending(key=store.key(batch), domains=batch.owner.domains, at=time.time())
    for _ in range(_TRIES):
        entry = await store.bucket.find(_KEY)
        admitted = _Admitted.model_validate_json(entry.value) if entry else _Admitted()
        young = [one for one in admitted.pending if mine.at - one.at < PENDING_SECONDS]
        pending = [one for one in young if await store.bucket.find(one.key) is None]
        _check(batch, [one.batch for one in await store.open()], pending, most)
        content = _Admitted(pending=[*pending, mine]).model_dump_json().encode()
        try:
            await store.bucket.replace(_KEY, content, entry.revision if entry else 0)
        except WrittenMeanwhile:
            continue
        await store.add(batch)
        return
    raise Busy("too many batches are made at once; try again.", code="store_unavailable", retry_after=2)


def _check(batch: BatchRecord, running: list[BatchRecord], pending: list[_Pending], most: int) -> None:
    keys = {BatchStore.key(one) for one in running}
    taken = Counter(domain for one in running for domain in one.owner.domains)
    # One that was written since it was looked for counts once.
    taken.update(domain for one in pending if one.key not in keys for domain in one.domains)
    for domain in sorted(batch.owner.domains):
        if taken[domain] >= most:
            message = f"domain {domain!r} has {taken[domain]} batches that have not ended; wait for one, or cancel it."
            raise Conflict(message, code="too_many_batches", param="input_file_id")
