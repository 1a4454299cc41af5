"""`BatchStore`: records of files and batches on the bus, their contents in the object store."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import structlog
from prometheus_client import Counter
from pydantic import ValidationError

from fleet_events.v1 import Blob
from fleet_kit.auth import Caller
from fleet_kit.blobs import Blobs
from fleet_kit.caller import EVERY_DOMAIN
from fleet_kit.errors import BlobCorrupt, BlobMissing
from fleet_kit.faults import describe
from fleet_kit.key_value import Entry, KeyValue, WrittenMeanwhile
from services.inference.batches.records import BatchRecord, FileRecord
from services.inference.errors import ApiError, Busy, NotFound
from services.inference.recording.recorder import AWAY

log = structlog.get_logger()
R = TypeVar("R", FileRecord, BatchRecord)

CORRUPT = Counter(
    "lorafleet_inference_batch_parts_corrupt_total", "Stored results of lines that could not be read again"
)
READS: Final = 3
"""Of a part that is read otherwise than it was stored."""
KIND: Final = "batches"
"""Of the objects: `inference/batches/<id of a file or a batch>/<digest>`."""


@dataclass(frozen=True)
class Kept:
    """A batch with the revision of its record."""

    batch: BatchRecord
    revision: int


class BatchStore:
    """Files and batches. What is another caller's does not exist for this one."""

    def __init__(self, bucket: KeyValue, blobs: Blobs) -> None:
        self.bucket = bucket
        self._blobs = blobs
        self._ended: set[str] = set()
        """Keys of batches that were seen at their end, which is for good."""
        self.added = asyncio.Event()
        """Set when this process adds a batch: its runner need not wait for its next look."""

    async def add_file(self, record: FileRecord) -> None:
        """Write a file's record; its content is there."""
        await self.bucket.put(_key("file", record.owner.subject, record.id), record.model_dump_json().encode())

    async def file(self, file_id: str, caller: Caller, now: float) -> FileRecord:
        """A file of the caller's own.

        Raises:
            NotFound: there is none, or it is not the caller's, or is not kept any more.
        """
        found = await self._own(FileRecord, "file", file_id, caller)
        if found is None or found[0].expires_at <= now:
            raise _missing("file", file_id)
        return found[0]

    async def files(self, caller: Caller, now: float) -> list[FileRecord]:
        """The caller's files, the oldest first."""
        return [one for one, _ in await self._all(FileRecord, "file", caller) if one.expires_at > now]

    async def drop_file(self, record: FileRecord) -> None:
        """Delete record and content."""
        await self.bucket.delete(_key("file", record.owner.subject, record.id))
        await self._blobs.delete(record.blob)

    async def erase(self, subject: str, domain: str) -> int:
        """Delete files and batches of a caller ("*": all, else those of that domain alone); returns how many records.

        The process that runs such a batch loses it. Raises what bus and object store raise; again is the same.
        """

        def is_meant(record: FileRecord | BatchRecord) -> bool:
            return domain == EVERY_DOMAIN or record.owner.domains <= {domain}

        erased = 0
        for key in await self.bucket.keys(_key("batch", subject, "*")):
            entry = await self.bucket.find(key)
            batch = _read(BatchRecord, entry) if entry else None
            if batch and is_meant(batch):
                # Before its parts: one that is stored behind this is deleted by the process that ran the batch.
                await self.bucket.delete(key)
                await self.drop(await self.parts(batch))
                erased += 1
        for key in await self.bucket.keys(_key("file", subject, "*")):
            entry = await self.bucket.find(key)
            file = _read(FileRecord, entry) if entry else None
            if file and is_meant(file):
                await self._blobs.delete(file.blob)
                await self.bucket.delete(key)
                erased += 1
        return erased

    async def add(self, batch: BatchRecord) -> None:
        """Write a new batch."""
        await self.bucket.replace(self.key(batch), batch.model_dump_json().encode(), 0)
        self.added.set()

    async def batch(self, batch_id: str, caller: Caller) -> Kept:
        """A batch of the caller's own; raises `NotFound` as `file` does."""
        found = await self._own(BatchRecord, "batch", batch_id, caller)
        if found is None:
            raise _missing("batch", batch_id)
        return Kept(*found)

    async def batches(self, caller: Caller) -> list[BatchRecord]:
        """The caller's batches, the oldest first."""
        return [one for one, _ in await self._all(BatchRecord, "batch", caller)]

    async def open(self) -> list[Kept]:
        """Every caller's batches that have not ended."""
        found: list[Kept] = []
        keys = await self.bucket.keys("batch.*.*")
        self._ended.intersection_update(keys)
        for key in keys:
            if key in self._ended or (entry := await self.bucket.find(key)) is None:
                continue
            if (batch := _read(BatchRecord, entry)) is None:
                continue
            if batch.ended:
                self._ended.add(key)
            else:
                found.append(Kept(batch, entry.revision))
        return found

    async def read(self, batch: BatchRecord) -> Kept | None:
        """The same batch as it is now."""
        entry = await self.bucket.find(self.key(batch))
        newest = _read(BatchRecord, entry) if entry else None
        return Kept(newest, entry.revision) if entry and newest else None

    async def write(self, batch: BatchRecord, revision: int) -> Kept:
        """Write the record over that revision; raises `WrittenMeanwhile` where it has another one."""
        content = batch.model_dump_json().encode()
        return Kept(batch, await self.bucket.replace(self.key(batch), content, revision))

    async def change(self, kept: Kept, to: Callable[[BatchRecord], BatchRecord]) -> Kept:
        """Write what the newest record becomes, however many others write it meanwhile."""
        while True:
            try:
                return await self.write(to(kept.batch), kept.revision)
            except WrittenMeanwhile:
                if (newest := await self.read(kept.batch)) is None:
                    raise _missing("batch", kept.batch.id) from None
                kept = newest

    async def put(self, owner_id: str, content: bytes | Path) -> Blob:
        """Store an object of a file or a batch."""
        return await self._blobs.put(f"{KIND}/{owner_id}", content, content_type="application/jsonl")

    async def fetch(self, blob: Blob, to: Path) -> Path:
        """The content as a file; raises `BlobMissing`, `BlobCorrupt`."""
        return await self._blobs.fetch(blob, to)

    async def parts(self, batch: BatchRecord) -> list[Blob]:
        """The objects that were stored of a batch."""
        found: list[Blob] = []
        async for page in self._blobs.pages(f"{KIND}/{batch.id}"):
            found += [
                Blob(uri=self._blobs.uri(one.key), sha256=one.key.rpartition("/")[2], bytes=one.bytes) for one in page
            ]
        return found

    async def part(self, blob: Blob) -> bytes:
        """A part's content; nothing where another process has deleted it at the batch's end.

        One that is not what was stored, however often it is read, is deleted: its lines are those of no part then.
        """
        for _ in range(READS):
            try:
                return await self._blobs.get(blob)
            except BlobMissing:
                return b""
            except BlobCorrupt as error:
                reason = describe(error)
        CORRUPT.inc()
        log.error("batch_part_corrupt", uri=blob.uri, reason=reason)
        await self._blobs.delete(blob)
        return b""

    async def drop(self, blobs: Sequence[Blob]) -> None:
        """Delete objects; one that cannot be deleted ages out."""
        try:
            for blob in blobs:
                await self._blobs.delete(blob)
        except AWAY as error:
            log.warning("batch_parts_not_deleted", reason=describe(error))

    @staticmethod
    def key(batch: BatchRecord) -> str:
        return _key("batch", batch.owner.subject, batch.id)

    async def _own(self, kind: type[R], name: str, record_id: str, caller: Caller) -> tuple[R, int] | None:
        if not (record_id.isascii() and record_id.replace("-", "").replace("_", "").isalnum()):
            return None
        entry = await self.bucket.find(_key(name, caller.subject, record_id))
        return _opened(kind, entry, caller)

    async def _all(self, kind: type[R], name: str, caller: Caller) -> list[tuple[R, int]]:
        keys = await self.bucket.keys(_key(name, caller.subject, "*"))
        found = [_opened(kind, await self.bucket.find(key), caller) for key in keys]
        return [one for one in found if one is not None]


@contextmanager
def reachable() -> Iterator[None]:
    """Turns an unavailable bus or object store into the answer to an HTTP request."""
    try:
        yield
    except ApiError:
        raise
    except AWAY as error:
        log.warning("batches_unavailable", reason=describe(error))
        raise Busy(
            "files and batches cannot be reached now; try again.", code="store_unavailable", retry_after=2
        ) from error


def _opened(kind: type[R], entry: Entry | None, caller: Caller) -> tuple[R, int] | None:
    record = _read(kind, entry) if entry else None
    return (record, entry.revision) if entry and record and record.owner.shown_to(caller) else None


def _read(kind: type[R], entry: Entry) -> R | None:
    """The record; None for one of a release with other members."""
    try:
        return kind.model_validate_json(entry.value)
    except ValidationError as error:
        log.warning("batch_record_unreadable", kind=kind.__name__, revision=entry.revision, reason=str(error)[:300])
        return None


def _key(kind: str, subject: str, record_id: str) -> str:
    return f"{kind}.{blake2b(subject.encode(), digest_size=16).hexdigest()}.{record_id}"


def _missing(kind: str, record_id: str) -> NotFound:
    message = f"{kind} {record_id[:80]!r} does not exist, or is not kept any more."
    return NotFound(message, code=f"{kind}_not_found", param=f"{kind}_id")
