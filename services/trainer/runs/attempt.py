"""One attempt at a job: subprocess, journal, checkpoint uploads and the watch for cancellation, side by side."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from fleet_events import v1
from fleet_kit.errors import BlobCorrupt, BlobMissing, LeaseLost
from fleet_kit.leased_task import LeasedTask
from services.trainer.child_process import Crashed
from services.trainer.datasets.consumer_barrier import settled
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.golden.index import GoldenIndex
from services.trainer.datasets.golden.known import golden_index
from services.trainer.datasets.stored_card import adapter_type_of, golden_threshold_of, read_data_card
from services.trainer.jobs import domain, store
from services.trainer.jobs.store import StoredCheckpoint
from services.trainer.retry import PASSING, patiently
from services.trainer.runs.checkpoint import best_step, pack, unpack
from services.trainer.runs.context import RunContext
from services.trainer.runs.progress_log import ProgressLog
from services.trainer.runs.supervisor import TrainingCrashed
from services.trainer.training.protocol import (
    Began,
    Finished,
    Outcome,
    Paused,
    Saved,
    Stepped,
    TrainingRefused,
    TrainingSpec,
    Validated,
    ask_to_pause,
)

T = TypeVar("T")
log = structlog.get_logger()

_WATCH_SECONDS = 0.5


class CancelWanted(Exception):
    """Cancelling the job was requested."""


class PauseTaken(Exception):
    """Pausing the job was requested; it has stopped, and its checkpoint is stored."""


class DataRefused(Exception):
    """The subprocess found that this data cannot be trained like this."""


class Attempt:
    """A worker's hold on one job, from the newest checkpoint to the trained adapter."""

    def __init__(
        self, job: domain.Job, data: StoredDataset, folder: Path, work: LeasedTask, service: RunContext
    ) -> None:
        self._job = job
        self._data = data
        self._folder = folder
        self._work = work
        self._service = service
        self._uploads: asyncio.Queue[Saved | None] = asyncio.Queue()
        self._progress: ProgressLog | None = None

    async def run(self) -> Outcome:
        """Train to the end.

        Raises:
            Crashed: the subprocess died; the job can continue from its newest checkpoint.
            DataRefused: trying again changes nothing.
            CancelWanted: stopped on request.
            PauseTaken: stopped on request, behind a checkpoint.
            LeaseLost: another worker has the job.
        """
        spec = await self._specify()
        try:
            async with asyncio.TaskGroup() as group:
                # A failure of one of these stops the others, and with them the subprocess.
                uploading = group.create_task(self._upload_all())
                watching = group.create_task(self._watch())
                try:
                    outcome = await self._follow(spec, group)
                except (Crashed, PauseTaken):
                    # What it had saved spares the next attempt those steps.
                    self._uploads.put_nowait(None)
                    await uploading
                    raise
                self._uploads.put_nowait(None)
                await uploading
                watching.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        return outcome

    async def _specify(self) -> TrainingSpec:
        data = self._folder / "data.parquet"
        settings = self._service.settings
        await self._patiently("data set", lambda: self._service.blobs.fetch(self._data.dataset.blob, data))
        card = await read_data_card(self._data.dataset, self._service)
        resume_from, best_from = await self._restore()
        return TrainingSpec(
            job_id=self._job.job_id,
            dataset=data,
            base_model=settings.base_model.resolve(),
            base_model_name=settings.trained_name,
            configuration=self._job.configuration,
            work=self._folder,
            resume_from=resume_from,
            best_from=best_from,
            continue_from=await self._fetch_continued(),
            exports=self._job.request.exports,
            adapter_type=adapter_type_of(card),
            golden=await self._golden_prints(),
            golden_threshold=golden_threshold_of(card),
            embedding_model=settings.embedding_model and settings.embedding_model.resolve(),
            threads=max(1, settings.cores // self._job.configuration.processes),
            probe_prompt=settings.probe_prompt,
            supervisor=os.getpid(),
        )

    async def _golden_prints(self) -> Path | None:
        """A file of what golden data sets hold now, which may be more than when the data set was built."""

        async def known() -> GoldenIndex:
            await settled(v1.GoldenDatasetPublished, self._service)
            async with self._service.db.acquire(timeout=5) as connection:
                return await golden_index(connection)

        golden = await self._patiently("golden data sets", known)
        if not golden.prints:
            return None
        await asyncio.to_thread(golden.dump, path := self._folder / "golden.jsonl")
        return path

    async def _restore(self) -> tuple[Path | None, Path | None]:
        """Folders of the newest checkpoint that can be had and of the best one not beyond it."""

        async def known() -> tuple[list[StoredCheckpoint], list[Validated]]:
            async with self._service.db.acquire(timeout=5) as connection:
                checkpoints = await store.list_checkpoints(connection, self._job.job_id)
                return checkpoints, await store.list_validations(connection, self._job.job_id)

        checkpoints, validations = await self._patiently("checkpoints", known)
        for at, newest in enumerate(checkpoints):
            folder = await self._fetch_checkpoint(newest, "resume")
            if folder is None:
                continue
            best = best_step([one.step for one in checkpoints[at:]], validations)
            if best is None or best == newest.step:
                return folder, folder if best else None
            (kept,) = (one for one in checkpoints if one.step == best)
            return folder, await self._fetch_checkpoint(kept, "best")
        return None, None

    async def _fetch_checkpoint(self, checkpoint: StoredCheckpoint, name: str) -> Path | None:
        archive = self._folder / f"{name}.tar"
        try:
            await self._patiently("checkpoint", partial(self._service.blobs.fetch, checkpoint.blob, archive))
        except (BlobMissing, BlobCorrupt) as error:
            log.warning("checkpoint_unusable", job=self._job.job_id, step=checkpoint.step, reason=str(error))
            return None
        return await asyncio.to_thread(unpack, archive, self._folder / name)

    async def _fetch_continued(self) -> Path | None:
        continued = self._job.continued
        if continued is None:
            return None
        folder, blobs = self._folder / "continue", self._service.blobs
        weights = partial(blobs.fetch, continued.weights, folder / "adapter_model.safetensors")
        try:
            await self._patiently("adapter to continue", weights)
            await self._patiently(
                "its configuration", lambda: blobs.fetch(continued.config, folder / "adapter_config.json")
            )
        except (BlobMissing, BlobCorrupt) as error:
            raise DataRefused(f"continue_from: {continued.continued_from!r} is of no use: {error}") from error
        return folder

    async def _follow(self, spec: TrainingSpec, group: asyncio.TaskGroup) -> Outcome:
        began: Began | None = None
        finished: Finished | None = None
        paused = False
        flushing: asyncio.Task[None] | None = None
        async with aclosing(self._service.parts.launcher.launch(spec)) as messages:
            async for message in messages:
                match message:
                    case Began():
                        began = message
                        await self._patiently("start of training", partial(self._begin, message))
                        self._progress = ProgressLog(self._job, message.total_steps, self._work, self._service.settings)
                        flushing = group.create_task(self._progress.keep_flushing())
                    case Stepped() if self._progress:
                        self._progress.note(message)
                    case Validated() if self._progress:
                        self._progress.note_validation(message)
                    case Saved():
                        self._uploads.put_nowait(message)
                    case Finished():
                        finished = message
                    case Paused():
                        paused = True
                    case TrainingRefused():
                        raise DataRefused(message.reason)
        if flushing:
            flushing.cancel()
        if began is None or self._progress is None or not (finished or paused):
            raise TrainingCrashed(0, "it ended without a result")
        await self._patiently("last steps", self._progress.flush)
        if finished is None:
            raise PauseTaken
        return Outcome(began, finished)

    async def _begin(self, began: Began) -> None:
        async with self._work.transaction() as tx:
            job = await store.locked(tx.connection, self._job.job_id)
            job, started = domain.begin(job, self._data.dataset, began.total_steps, began.resumed_step)
            await store.save_job(tx.connection, job)
            await tx.emit(started, entity=job.job_id)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                async with self._service.db.acquire(timeout=5) as connection:
                    cancel, pause = await store.requested_stops(connection, self._job.job_id)
            except PASSING:
                continue  # the next look decides
            if cancel:
                raise CancelWanted
            if pause:
                ask_to_pause(self._folder)

    async def _upload_all(self) -> None:
        while (saved := await self._uploads.get()) is not None:
            try:
                await self._keep(saved)
            except PASSING as error:
                # Training continues: a missing checkpoint costs time after a crash, stopping costs it now.
                log.warning("checkpoint_not_stored", job=self._job.job_id, step=saved.step, reason=repr(error))

    async def _keep(self, saved: Saved) -> None:
        archive = await asyncio.to_thread(pack, saved.folder, self._folder / f"{saved.step}.tar")
        await asyncio.to_thread(shutil.rmtree, saved.folder)
        try:
            blob = await self._patiently(
                "checkpoint upload", lambda: self._service.blobs.put(f"resume/{self._job.job_id}", archive)
            )
        finally:
            archive.unlink()
        if self._progress:
            # Steps before a checkpoint are never done again, so they are written before it counts.
            await self._patiently("steps", self._progress.flush)
        stored = StoredCheckpoint(saved.step, saved.epoch, blob)
        superseded = await self._patiently("checkpoint record", lambda: self._record(stored))
        for old in superseded:
            # The object goes first: a record without it is skipped at a resume and removed with the next one.
            if old.blob.uri != blob.uri:
                await self._service.blobs.delete(old.blob)
            async with self._work.transaction() as tx:
                await store.forget_checkpoint(tx.connection, self._job.job_id, old.step)

    async def _record(self, checkpoint: StoredCheckpoint) -> list[StoredCheckpoint]:
        """Record it; returns those that are now one too many."""
        async with self._work.transaction() as tx:
            job = await store.locked(tx.connection, self._job.job_id)
            await store.add_checkpoint(tx.connection, job.job_id, checkpoint)
            await store.save_job(tx.connection, domain.keep_checkpoint(job))
            kept = await store.list_checkpoints(tx.connection, job.job_id)
            validations = await store.list_validations(tx.connection, job.job_id)
        best = best_step([one.step for one in kept], validations)
        return [one for one in kept[self._job.configuration.keep_checkpoints :] if one.step != best]

    async def _patiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        return await patiently(what, call, seconds=self._service.settings.patience_seconds)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that explains the others: losing the lease or being cancelled outrank the crash they cause."""
    leaves = list(_leaves(failures))
    for kind in (LeaseLost, CancelWanted, PauseTaken):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(failures: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from _leaves(failure)
        else:
            yield failure
