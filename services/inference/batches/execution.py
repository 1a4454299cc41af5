"""One batch from its file to its output: check the lines, answer those that are not done yet, join what came."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog
from prometheus_client import Counter

from fleet_kit import tasks
from fleet_kit.errors import BlobCorrupt, BlobMissing
from services.inference.batches import lifecycle
from services.inference.batches.held import HeldBatch, LeaseLost
from services.inference.batches.lines import LineAt, check
from services.inference.batches.records import ENDED as ENDED_STATES
from services.inference.batches.records import BatchRecord, FileRecord, LineFault
from services.inference.batches.results import Joined, is_completed, not_run, part_of
from services.inference.batches.store import BatchStore
from services.inference.settings import InferenceSettings

log = structlog.get_logger()

LINES = Counter(
    "lorafleet_inference_batch_lines_total",
    "Lines of batches, by what came of them (completed, failed; interrupted ones run again)",
    ["outcome"],
)
ENDED = Counter("lorafleet_inference_batches_ended_total", "Batches that have ended, by their state", ["status"])
# There from the start: a batch that another process left must not make a series.
for _outcome in ("completed", "failed", "interrupted"):
    LINES.labels(_outcome)
for _status in sorted(ENDED_STATES):
    ENDED.labels(_status)

_READ_AT_ONCE = 16

Answer = Callable[[HeldBatch, Path, LineAt], Awaitable[Mapping[str, object]]]
"""Computes a line of a file: the line of the output."""


IsRevoked = Callable[[BatchRecord], bool]
"""Whether the key or token of a batch's owner was revoked since."""


class Execution:
    """Runs a batch that this process holds. at_once: lines that it answers at a time."""

    def __init__(
        self,
        held: HeldBatch,
        store: BatchStore,
        settings: InferenceSettings,
        answer: Answer,
        at_once: int,
        *,
        is_revoked: IsRevoked,
    ) -> None:
        self._held = held
        self._store = store
        self._settings = settings
        self._answer = answer
        self._at_once = at_once
        self._is_revoked = is_revoked
        self._completed = self._failed = 0
        self._unsaved: list[Mapping[str, object]] = []
        self._saving = asyncio.Lock()

    async def run(self) -> None:
        """Run it to its end; raises `LeaseLost`, and what bus and object store raise."""
        with tempfile.TemporaryDirectory(prefix="lorafleet-batch-") as folder:
            await self._run(Path(folder))
        if self._held.batch.ended:
            ENDED.labels(self._held.batch.status).inc()
            log.info("batch_ended", batch_id=self._held.batch.id, status=self._held.batch.status)

    async def _run(self, folder: Path) -> None:
        held, settings = self._held, self._settings
        try:
            path = await self._store.fetch(held.batch.source, folder / "input")
        except (BlobMissing, BlobCorrupt):
            fault = LineFault(code="file_not_found", message="the input file is not there", param="input_file_id")
            await held.change(lambda batch: lifecycle.refused(batch, [fault], _now()))
            return
        checked = await asyncio.to_thread(
            check, path, held.batch.endpoint, most_lines=settings.batch_lines, most_bytes=settings.batch_line_bytes
        )
        if checked.faults:
            await held.change(lambda batch: lifecycle.refused(batch, checked.faults, _now()))
            return
        if held.batch.in_progress_at is None:
            await held.change(lambda batch: lifecycle.begun(batch, len(checked.lines), checked.model, _now()))
        joined = await self._joined(folder, "before")
        self._completed, self._failed = joined.completed, joined.failed
        await self._answer_all(path, [one for one in checked.lines if one.custom_id not in joined.done])
        await held.change(lambda batch: batch if held.stopped.is_set() else lifecycle.finalizing(batch, _now()))
        await self._finish(folder, checked.lines)

    async def _answer_all(self, path: Path, left: list[LineAt]) -> None:
        """Answer the lines, until all are kept or the batch is stopped."""
        if self._held.stopped.is_set():
            return
        lines = iter(left)

        async def work() -> None:
            for line in lines:
                if self._is_revoked(self._held.batch):
                    await self._held.change(lambda batch: lifecycle.revoked(batch, _now()))
                    return
                await self._save(await self._answer(self._held, path, line))

        stopped = asyncio.create_task(self._held.stopped.wait())
        workers = [asyncio.create_task(work()) for _ in range(min(self._at_once, len(left)))]
        pending: set[asyncio.Task[None]] = set(workers)
        try:
            while pending and not stopped.done():
                done, _ = await asyncio.wait({*pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for one in pending & done:
                    one.result()
                pending -= done
        finally:
            await tasks.end(stopped, *workers)

    async def _save(self, line: Mapping[str, object]) -> None:
        """Keep a line: with it those that came while the last part was stored."""
        self._unsaved.append(line)
        async with self._saving:
            if not any(one is line for one in self._unsaved):
                return
            # Stored before they count: what is cancelled in between is found among the parts.
            saved = list(self._unsaved)
            await self._store.put(self._held.batch.id, part_of(saved))
            del self._unsaved[: len(saved)]
            completed = sum(map(is_completed, saved))
            self._completed, self._failed = self._completed + completed, self._failed + len(saved) - completed
            LINES.labels("completed").inc(completed)
            LINES.labels("failed").inc(len(saved) - completed)
            now = self._completed, self._failed
            await self._held.change(lambda batch: lifecycle.counted(batch, *now))

    async def _joined(self, folder: Path, name: str) -> Joined:
        """All parts, each line once."""
        joined = Joined(folder / f"{name}-output", folder / f"{name}-errors")
        parts = await self._store.parts(self._held.batch)
        for begin in range(0, len(parts), _READ_AT_ONCE):
            read = (self._store.part(blob) for blob in parts[begin : begin + _READ_AT_ONCE])
            for content in await asyncio.gather(*read):
                await asyncio.to_thread(joined.add, content)
        return joined

    async def _finish(self, folder: Path, lines: list[LineAt]) -> None:
        held, batch = self._held, self._held.batch
        joined = await self._joined(folder, "all")
        # One that took the batch over may have ended it and deleted the parts before they were listed here.
        await held.beat()
        # With every line kept, what is missing was stored and cannot be read again.
        stopped = "failed" if batch.given_up else "lost" if batch.status == "finalizing" else "expired"
        why = "cancelled" if batch.status == "cancelling" else stopped
        left = [not_run(one.custom_id, why) for one in lines if one.custom_id not in joined.done]
        await asyncio.to_thread(joined.add, part_of(left))
        output = await self._file(joined.output, "output") if joined.completed else None
        errors = await self._file(joined.errors, "error") if joined.failed else None
        try:
            await held.change(
                lambda batch: lifecycle.ended(
                    batch,
                    _now(),
                    output_file_id=output.id if output else None,
                    error_file_id=errors.id if errors else None,
                    counts=joined.counts(len(lines)),
                    usage=joined.usage,
                )
            )
        except LeaseLost:
            if held.erased:
                for file in filter(None, (output, errors)):
                    await self._store.drop_file(file)
            raise
        await self._store.drop(await self._store.parts(batch))

    async def _file(self, path: Path, which: str) -> FileRecord:
        """Store one of the two files. Its id is made of the batch's, so that an end that is repeated has the same."""
        batch = self._held.batch
        file_id = f"file-{batch.id.removeprefix('batch_')}{which[0]}"
        longest = round(self._settings.batch_files_days * 86400)
        kept = min(batch.output_seconds or longest, longest)
        record = FileRecord(
            id=file_id,
            owner=batch.owner,
            blob=await self._store.put(file_id, path),
            filename=f"{batch.id}_{which}.jsonl",
            purpose="batch_output",
            created_at=_now(),
            expires_at=_now() + kept,
        )
        await self._store.add_file(record)
        return record


def _now() -> int:
    return int(time.time())
