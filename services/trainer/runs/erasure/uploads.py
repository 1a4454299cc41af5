"""Takes the rows about forgotten people out of uploaded files.

A file is written again without them and keeps its id, so that recipes which name it can be built again. The file
before is deleted once the row names the new one; its name stays in the row until then, for the next worker.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from fleet_events.v1 import Blob
from fleet_kit.cloudevents import event_id
from fleet_kit.errors import BlobMissing
from services.trainer.child_process import bare_environment, child
from services.trainer.datasets.dataset import StoredUpload
from services.trainer.datasets.store import subjects as subject_store
from services.trainer.datasets.worker.strike import StrikeSpec, Struck
from services.trainer.runs.context import RunContext
from services.trainer.runs.erasure import upload_store as store
from services.trainer.runs.erasure.store import Erasure
from services.trainer.work_folder import work_folder

log = structlog.get_logger()

_AT_ONCE = 20


async def erase_uploads(erasure: Erasure, service: RunContext) -> list[str]:
    """Take the person's rows out of all uploads of the domain; returns ids of those that cannot be read."""
    await _delete_former(service)
    async with service.db.acquire(timeout=5) as connection:
        uploads = await store.uploads_of(connection, erasure.domain)
    unreadable = []
    for one in uploads:
        if (await _erase(one, {erasure.subject: erasure.erasure_id}, service)).unreadable:
            unreadable.append(one.upload_id)
    return sorted(set(unreadable))


async def erase_late_uploads(service: RunContext) -> None:
    """Take forgotten people's rows out of the uploads that came since the last time."""
    await _delete_former(service)
    async with service.db.acquire(timeout=5) as connection:
        uploads = await store.uploads_not_looked_at(connection, _AT_ONCE)
    for one in uploads:
        now = datetime.now(UTC)
        async with service.db.acquire(timeout=5) as connection:
            forgotten = await subject_store.forgotten_in(connection, one.domain)
        await _erase(one, forgotten, service)
        async with service.transaction() as tx:
            await store.note_looked_at(tx.connection, one, now)


async def _erase(upload: StoredUpload, forgotten: Mapping[str, str], service: RunContext) -> Struck:
    """Rewrite one upload without the rows of these people: digest → erasure."""
    async with service.db.acquire(timeout=5) as connection:
        key = await subject_store.subject_key(connection)
        columns = await store.columns_naming_people(connection, upload)
    with work_folder(service.settings.cache_dir) as folder:
        copy = folder / "left"
        try:
            path = await service.blobs.fetch(upload.blob, folder / "upload")
        except BlobMissing:  # it was deleted, or expired, meanwhile
            return Struck()
        spec = StrikeSpec(
            path=path,
            format=upload.format,
            copy_to=copy,
            columns=tuple(columns),
            key=key.hex(),
            subjects=frozenset(forgotten),
            limit=service.settings.source_bytes,
        )
        struck = await _struck(spec)
        if not struck.rows:
            return struck
        left = await service.blobs.put(f"uploads/{upload.domain}/{event_id()}", copy)
    erasures = sorted({forgotten[one] for one in struck.rows})
    async with service.transaction() as tx:
        taken = await store.exchange_file(tx.connection, upload, left, erasures)
    if not taken:  # it was deleted meanwhile
        await service.blobs.delete(left)
    await _delete_former(service)
    log.info("rows_erased_from_upload", domain=upload.domain, erasures=erasures, rows=sum(struck.rows.values()))
    return struck


async def _struck(spec: StrikeSpec) -> Struck:
    named = spec.path.with_name("strike.json")
    named.touch(mode=0o600)
    named.write_text(spec.model_dump_json())
    module = "services.trainer.datasets.worker.strike"
    async with child(module, str(named), environment=bare_environment()) as process:
        assert process.stdout is not None
        answer = await process.stdout.read()
        if status := await process.wait():
            raise RuntimeError(f"the upload could not be searched: its reader exited with status {status}")
    return Struck.model_validate_json(answer)


async def _delete_former(service: RunContext) -> None:
    async with service.db.acquire(timeout=5) as connection:
        former = await store.former_files(connection)
    for uri in former:
        await service.blobs.delete(Blob(uri=uri, sha256="0" * 64))
        async with service.transaction() as tx:
            await store.drop_former(tx.connection, uri)
