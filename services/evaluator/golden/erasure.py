"""Erases a person from golden data sets, and from what was judged with samples about them.

A version that is not frozen loses the samples. A frozen one keeps their ids without text, its digest (which is that of
what was judged with) and its scores, and is used for no further evaluation; where it is the newest, the next one goes
on without them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from fleet_events.v1 import SubjectErased
from fleet_kit.blobs import Blobs
from fleet_kit.db import Connection
from fleet_kit.transaction import Transaction
from services.evaluator.domain import next_version
from services.evaluator.golden import erasure_store as store
from services.evaluator.golden import sets as golden_sets
from services.evaluator.golden import store as golden_store
from services.evaluator.golden.erasure_store import SamplesAbout
from services.evaluator.golden.publication import publish
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.store import unreferenced


async def forget(tx: Transaction, blobs: Blobs, *, erasure_id: str, subject: str, domain: str, by: str) -> int:
    """Erase everything about a person in a domain ("*": in all) and publish it; returns samples and results erased.

    Once more is the same: what came since is erased. Objects go before the commit, so that none is left without a row.
    """
    connection = tx.connection
    await store.lock_forgetting(connection)
    deleted = 0
    for one in await store.samples_about(connection, subject, domain):
        deleted += len(one.sample_ids) + await _erase(tx, blobs, one, erasure_id, by)
    digest = _digest(await store.subject_key(connection), subject)
    await store.add_forgotten(connection, digest, domain, erasure_id, deleted)
    await tx.emit(SubjectErased(erasure_id=erasure_id, service="evaluator", deleted=deleted, part=1), entity=erasure_id)
    return deleted


async def admitted(connection: Connection, samples: Sequence[GoldenSample], domain: str) -> list[GoldenSample]:
    """The samples without those about forgotten people; holds off requests to forget until the transaction ends."""
    if not any(sample.subject for sample in samples):
        return list(samples)
    await store.lock_importing(connection)
    key = await store.subject_key(connection)
    digests = {sample.subject: _digest(key, sample.subject) for sample in samples if sample.subject}
    gone = await store.forgotten(connection, domain, digests.values())
    return [sample for sample in samples if not sample.subject or digests[sample.subject] not in gone]


async def _erase(tx: Transaction, blobs: Blobs, one: SamplesAbout, erasure_id: str, by: str) -> int:
    connection = tx.connection
    await golden_store.lock_dataset(connection, one.dataset_id)
    newest = await golden_sets.get(connection, one.dataset_id)
    version = await golden_sets.get(connection, one.dataset_id, one.version)
    left = [
        sample
        for sample in await golden_store.samples(connection, one.dataset_id, one.version)
        if sample.sample_id not in one.sample_ids
    ]
    if not version.frozen:
        await golden_store.clear_samples(connection, one.dataset_id, one.version)
        await golden_store.add_samples(connection, one.dataset_id, one.version, left)
        await publish(tx, await golden_sets.get(connection, one.dataset_id, one.version))
        return 0
    await store.blank_samples(connection, one.dataset_id, one.version, one.sample_ids)
    await store.mark_erased(connection, one.dataset_id, one.version, erasure_id)
    if one.version == newest.version and left:
        await golden_store.add_version(
            connection,
            dataset_id=one.dataset_id,
            version=next_version(one.version),
            domain=one.domain,
            description=newest.description,
            context_use=newest.context_use,
            created_by=by,
        )
        await golden_store.add_samples(connection, one.dataset_id, next_version(one.version), left)
        await publish(tx, await golden_sets.get(connection, one.dataset_id))
    return await _erase_judgements(connection, blobs, one)


async def _erase_judgements(connection: Connection, blobs: Blobs, one: SamplesAbout) -> int:
    erased = await store.blank_results(connection, one)
    await store.blank_labels(connection, one)
    await store.blank_pairs(connection, one)
    for blob in await unreferenced(connection, await store.delete_exchanges(connection, one)):
        await blobs.delete(blob)
    reports = await store.take_reports(connection, one)
    used = await store.reports_used(connection, reports)
    for blob in (report for report in reports if report.uri not in used):
        await blobs.delete(blob)
    return erased


def _digest(key: bytes, name: str) -> str:
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()
