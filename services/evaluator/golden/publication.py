"""Publishes what golden data sets hold as fingerprints of their prompts, so that training can leave them out unread."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Sequence

import structlog

from fleet_events.v1 import GoldenDatasetPublished, GoldenPrint
from fleet_kit.faults import TRANSIENT
from fleet_kit.transaction import Transaction
from services.evaluator.domain import GoldenVersion
from services.evaluator.golden import store as golden_store
from services.evaluator.golden.samples import ContextUse, GoldenSample
from services.evaluator.parts import EvaluatorService

log = structlog.get_logger()

_PAUSE = 1.0
PART = 400
"""Prints of one event: 450 bytes each, and an event may have 256 kB."""


async def publish(tx: Transaction, version: GoldenVersion) -> None:
    """Publish what the version holds now, in the transaction that stored it; nothing for a version without samples."""
    samples = await golden_store.samples(tx.connection, version.dataset_id, version.version)
    if not samples:
        return
    revision = await golden_store.raise_revision(tx.connection, version.dataset_id, version.version)
    for event in await asyncio.to_thread(lambda: list(events(version, samples, revision))):
        await tx.emit(event, entity=version.dataset_id)


async def publish_missed(service: EvaluatorService) -> None:
    """Publish the versions stored before versions were published; retries while the database is unavailable."""
    while True:
        try:
            async with service.transaction() as tx:
                for version in await golden_store.unpublished(tx.connection):
                    await publish(tx, version)
        except TRANSIENT as error:
            log.warning("golden_publication_delayed", reason=repr(error))
            await asyncio.sleep(_PAUSE)
        else:
            return


def events(version: GoldenVersion, samples: Sequence[GoldenSample], revision: int) -> Iterator[GoldenDatasetPublished]:
    """One event for each `PART` prompts. A prompt that is sent with its context is there with and without it."""
    # Here, since an idle evaluator does without.
    from fleet_kit.text_fingerprints import SCHEME, digest, signatures

    texts = list(dict.fromkeys(_prompts(samples, version.context_use)))
    prints = [
        GoldenPrint(digest=digest(text).hex(), signature=base64.b64encode(signature.astype("<u4").tobytes()).decode())
        for text, signature in zip(texts, signatures(texts), strict=True)
    ]
    parts = [prints[start : start + PART] for start in range(0, len(prints), PART)]
    for number, part in enumerate(parts, start=1):
        yield GoldenDatasetPublished(
            dataset_id=version.dataset_id,
            version=version.version,
            domain=version.domain,
            revision=revision,
            part=number,
            parts=len(parts),
            scheme=SCHEME,
            prints=part,
        )


def _prompts(samples: Sequence[GoldenSample], use: ContextUse) -> Iterator[str]:
    for sample in samples:
        yield sample.prompt
        yield sample.question(use)
