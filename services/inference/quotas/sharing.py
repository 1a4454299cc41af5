"""Tells the other replicas what was taken here, and learns it from them."""

import asyncio
from hashlib import blake2b

import structlog
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from fleet_kit.faults import describe
from fleet_kit.key_value import KeyValue
from services.inference.quotas.ledger import Ledger, Used
from services.inference.recording.recorder import AWAY

__all__ = ["share"]

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two exchanges; what a killed replica gave after its last one is forgotten."""


async def share(ledger: Ledger, bucket: KeyValue, replica: str) -> None:
    """Exchange with the others until cancelled. While the bus is unavailable each replica counts by itself."""
    own = blake2b(replica.encode(), digest_size=12).hexdigest()
    resumed, written = "", None
    while True:
        try:
            month = ledger.month
            others = {key: used for key in await bucket.keys(f"{month}.*") if (used := await _read(bucket, key))}
            before = others.pop(f"{month}.{own}", None)
            ledger.learn(others.values())
            if resumed != month:
                resumed = month
                if before is not None and written is None:
                    ledger.resume(before)
            if (used := ledger.used()) != written and (used.in_month or written):
                await bucket.put(f"{used.month}.{own}", used.model_dump_json().encode())
                written = used
        except AWAY as error:
            log.warning("quotas_not_shared", reason=describe(error))
        await asyncio.sleep(EVERY)


async def _read(bucket: KeyValue, key: str) -> Used | None:
    try:
        found = await bucket.get(key)
        return Used.model_validate_json(found) if found else None
    except (NotFoundError, ValidationError):
        log.warning("quota_entry_unreadable", key=key)
        return None
