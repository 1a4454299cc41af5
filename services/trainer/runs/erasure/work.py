"""Erases what is recorded about a person. Each step can be repeated: a killed worker's is begun again by the next.

Files first, then messages, then rows: the rows tell where the rest is.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import structlog

from fleet_events.v1 import SubjectErased, SubjectForgotten
from fleet_kit.db import Connection
from fleet_kit.errors import BlobMissing
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.trainer.child_process import bare_environment, child
from services.trainer.datasets.store import subjects as subject_store
from services.trainer.runs import garbage_store
from services.trainer.runs.context import RunContext
from services.trainer.runs.erasure import learned_store, messages, store, upload_store
from services.trainer.runs.erasure.store import Erasure, SubjectRecord
from services.trainer.runs.erasure.uploads import erase_uploads
from services.trainer.work_folder import work_folder

log = structlog.get_logger()

A_DAY = timedelta(days=1)
IDS_A_PART = 200
"""Ids in one event, which may have 256 KiB."""
OTHERS = ("registry", "router")
"""Services that answer SubjectForgotten."""


async def erase(erasure_id: str, work: LeasedTask, service: RunContext) -> None:
    """Do what a request asks for and keep its proof; of one that is done, delete what has arrived since."""
    async with work.transaction() as tx:
        erasure = await store.find_erasure(tx.connection, erasure_id)
        done = erasure is None or any(
            one.service == service.name and one.state == "erased"
            for one in await store.services_of(tx.connection, erasure_id)
        )
        if erasure is not None and not done:
            await store.begin(tx.connection, erasure_id)
            await store.set_service(tx.connection, erasure_id, service.name, "erasing")
        key = await subject_store.subject_key(tx.connection)
    if erasure is None:
        async with work.finish():
            return
    unreadable: list[str] = []
    if not done:
        await erase_files(erasure, service)
        unreadable = await erase_uploads(erasure, service)
    async with service.db.acquire(timeout=5) as connection:
        records = await store.records_of(connection, erasure.subject, erasure.domain)
        texts = await store.texts_of_answers(connection, _ids(records, "answer"))
    for uri in texts:  # its message may be gone already
        await messages.delete_texts(service.blobs, uri)
    deleted = 0
    for one in records:
        if one.sequence:
            deleted += await messages.delete_message(service, one.stream, one.sequence, key, erasure.subject)
    if done:
        async with work.finish() as tx:
            await _forget_late(erasure, records, tx)
        return
    letters = await messages.delete_dead_letters(service, key, erasure.subject)
    async with service.db.acquire(timeout=5) as connection:
        uploads = await upload_store.erased_from(connection, erasure_id)
    counted: dict[str, dict[str, object]] = {
        "messages": {"count": deleted},
        "dead_letters": {"count": letters},
        "answer_texts": {"count": len(texts)},
        # Written again without the person's rows. What cannot be read is left: no recipe can use it either.
        "uploads": {"count": len(uploads), "sha256": _digest(uploads), "rewritten": uploads, "unreadable": unreadable},
    }
    async with work.finish() as tx:
        await _erase_rows(erasure, records, counted, tx, service)


async def _forget_late(erasure: Erasure, records: Sequence[SubjectRecord], tx: Transaction) -> None:
    """The registry gets feedback itself, and cannot know whom it is about."""
    generations = _ids(records, "answer", "feedback")
    for at in range(0, len(generations), IDS_A_PART):
        await tx.emit(_forgotten(erasure, generations[at : at + IDS_A_PART]), entity=erasure.erasure_id)
    await store.delete_records(tx.connection, erasure.subject, records)


async def erase_frozen_since(service: RunContext) -> None:
    """Erase what a build that had read its records before was freezing meanwhile, for a day after each request."""
    async with service.db.acquire(timeout=5) as connection:
        recent = await store.recently_erased(connection, service.name, A_DAY)
    for erasure in recent:
        await erase_files(erasure, service, since=erasure.requested_at)
        async with service.transaction() as tx:
            found = await learned_store.removed_for(tx.connection, f"erased: {erasure.erasure_id}")
            datasets = [one.dataset_id for one in found]
            adapters = await learned_store.learned_from(tx.connection, datasets)
            if (set(datasets), set(adapters)) == (set(erasure.datasets), set(erasure.adapters)):
                continue
            await store.add_found(tx.connection, erasure.erasure_id, datasets, adapters)
            await tx.emit(_forgotten(erasure, adapters=adapters), entity=erasure.erasure_id)


async def erase_files(erasure: Erasure, service: RunContext, *, since: datetime | None = None) -> None:
    """Remove the data sets that hold records of the person, and their cards, which quote records."""
    because = f"erased: {erasure.erasure_id}"
    async with service.db.acquire(timeout=5) as connection:
        waiting = await learned_store.datasets_to_scan(connection, erasure.domain, since)
    with work_folder(service.settings.cache_dir) as folder:
        for one in waiting:
            try:
                path = await service.blobs.fetch(one.blob, folder / "data.parquet")
            except BlobMissing:
                continue
            if not await _count(str(path), erasure.subject):
                continue
            async with service.transaction() as tx:
                await garbage_store.remove_dataset(tx.connection, one.dataset_id, because)
    async with service.db.acquire(timeout=5) as connection:
        found = await learned_store.removed_for(connection, because)
        cards = await learned_store.cards_of(connection, [one.dataset_id for one in found])
        await learned_store.stop_jobs(connection, [one.dataset_id for one in found], because)
    for blob in (*(one.blob for one in found), *cards):
        await service.blobs.delete(blob)


async def note_service_erased(event: SubjectErased, connection: Connection) -> None:
    """Count a part that a service has erased; with the last one of the last service the person is erased."""
    if await store.find_erasure(connection, event.erasure_id) is None:
        return
    if await store.add_part(connection, event.erasure_id, event.service, event.part):
        await store.count_deleted(connection, event.erasure_id, event.service, event.deleted)
        await store.end(connection, event.erasure_id)


async def _erase_rows(
    erasure: Erasure,
    records: Sequence[SubjectRecord],
    counted: dict[str, dict[str, object]],
    tx: Transaction,
    service: RunContext,
) -> None:
    connection = tx.connection
    samples, preferences, answers = (_ids(records, kind) for kind in ("sample", "preference", "answer"))
    generations = _ids(records, "answer", "feedback")
    datasets = [one.dataset_id for one in await learned_store.removed_for(connection, f"erased: {erasure.erasure_id}")]
    adapters = await learned_store.learned_from(connection, datasets)
    proof: dict[str, dict[str, object]] = {
        "samples": {
            "count": await store.delete_samples(connection, samples, generations),
            "sha256": _digest(samples),
        },
        "preferences": {
            "count": await store.delete_preferences(connection, preferences, generations),
            "sha256": _digest(preferences),
        },
        "rankings": {"count": await store.delete_rankings(connection, generations)},
        "answers": {"count": await store.delete_answers(connection, answers), "sha256": _digest(answers)},
        "feedback": {
            "count": await store.delete_feedback(connection, generations),
            "sha256": _digest(generations),
        },
        "datasets": {"count": len(datasets), "sha256": _digest(datasets)},
        **counted,
    }
    await store.delete_records(connection, erasure.subject, records)
    await store.prove(connection, erasure.erasure_id, datasets=datasets, adapters=adapters, deleted=proof)
    await store.set_service(connection, erasure.erasure_id, service.name, "erased")
    parts = [generations[at : at + IDS_A_PART] for at in range(0, len(generations), IDS_A_PART)] or [[]]
    for other in OTHERS:
        await store.set_service(connection, erasure.erasure_id, other, "requested", parts=len(parts))
    for number, ids in enumerate(parts, 1):
        forgotten = _forgotten(erasure, ids, adapters if number == 1 else (), part=number, parts=len(parts))
        await tx.emit(forgotten, entity=erasure.erasure_id)
    log.info("subject_erased", erasure=erasure.erasure_id, datasets=len(datasets), adapters=len(adapters))


def _forgotten(
    erasure: Erasure, ids: Sequence[str] = (), adapters: Sequence[str] = (), *, part: int = 0, parts: int = 0
) -> SubjectForgotten:
    return SubjectForgotten(
        erasure_id=erasure.erasure_id,
        domain=erasure.domain,
        subject_digest=erasure.subject,
        generation_ids=tuple(ids),
        adapter_ids=tuple(adapters),
        retire=erasure.retire,
        retire_when_replaced=erasure.replace,
        part=part,
        parts=parts,
        by=erasure.requested_by,
    )


async def _count(path: str, subject: str) -> int:
    """Records of a file that are about the person; raises RuntimeError where it cannot be read."""
    module = "services.trainer.datasets.worker.contains"
    async with child(module, subject, path, environment=bare_environment()) as process:
        assert process.stdout is not None
        found = await process.stdout.read()
        if status := await process.wait():
            raise RuntimeError(f"the data set could not be searched: its reader exited with status {status}")
        return int(found)


def _ids(records: Iterable[SubjectRecord], *kinds: str) -> list[str]:
    return sorted({one.record_id for one in records if one.kind in kinds})


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
