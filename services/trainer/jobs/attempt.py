"""One attempt at a job: subprocess, journal, checkpoint uploads and the watch for cancellation, side by side."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from fleet_kit.errors import BlobCorrupt, BlobMissing, LeaseLost
from fleet_kit.work import Work
from services.trainer import domain, store
from services.trainer.data.dataset import StoredDataset
from services.trainer.jobs.checkpoint import pack, unpack
from services.trainer.jobs.journal import Journal
from services.trainer.jobs.patience import PASSING, patiently
from services.trainer.jobs.supervisor import Crashed, supervise
from services.trainer.service import TrainerService
from services.trainer.store import StoredCheckpoint
from services.trainer.training.progress import Began, Finished, Refused, Saved, Stepped, TrainingSpec, Validated

T = TypeVar("T")
log = structlog.get_logger()

_WATCH_SECONDS = 0.5


class CancelWanted(Exception):
    """Somebody asked to cancel the job."""


class DataRefused(Exception):
    """The subprocess found that this data cannot be trained like this."""


@dataclass(frozen=True)
class Outcome:
    """What a finished subprocess said first and last."""

    began: Began
    finished: Finished


class Attempt:
    """A worker's hold on one job, from the newest checkpoint to the trained adapter."""

    def __init__(self, job: domain.Job, data: StoredDataset, folder: Path, work: Work, service: TrainerService) -> None:
        self._job = job
        self._data = data
        self._folder = folder
        self._work = work
        self._service = service
        self._uploads: asyncio.Queue[Saved | None] = asyncio.Queue()
        self._journal: Journal | None = None

    async def run(self) -> Outcome:
        """Train to the end.

        Raises:
            Crashed: the subprocess died; the job can go on from its newest checkpoint.
            DataRefused: trying again changes nothing.
            CancelWanted: stopped on request.
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
                except Crashed:
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
        data = self._folder / "data.jsonl"
        settings = self._service.settings
        await self._patiently("data set", lambda: self._service.blobs.fetch(self._data.dataset.blob, data))
        return TrainingSpec(
            job_id=self._job.job_id,
            dataset=data,
            base_model=settings.base_model.resolve(),
            base_model_name=settings.trained_name,
            configuration=self._job.configuration,
            work=self._folder,
            resume_from=await self._newest_checkpoint(),
            threads=settings.cores,
            probe_prompt=settings.probe_prompt,
            supervisor=os.getpid(),
        )

    async def _newest_checkpoint(self) -> Path | None:
        async def known() -> list[StoredCheckpoint]:
            async with self._service.db.acquire(timeout=5) as connection:
                return await store.list_checkpoints(connection, self._job.job_id)

        for checkpoint in await self._patiently("checkpoints", known):
            archive = self._folder / "resume.tar"
            try:
                await self._patiently("checkpoint", partial(self._service.blobs.fetch, checkpoint.blob, archive))
            except (BlobMissing, BlobCorrupt) as error:
                log.warning("checkpoint is of no use", job=self._job.job_id, step=checkpoint.step, reason=str(error))
                continue
            return await asyncio.to_thread(unpack, archive, self._folder / "resume")
        return None

    async def _follow(self, spec: TrainingSpec, group: asyncio.TaskGroup) -> Outcome:
        began: Began | None = None
        finished: Finished | None = None
        flushing: asyncio.Task[None] | None = None
        async with aclosing(supervise(spec)) as messages:
            async for message in messages:
                match message:
                    case Began():
                        began = message
                        await self._patiently("start of training", partial(self._begin, message))
                        self._journal = Journal(self._job, message.total_steps, self._work, self._service.settings)
                        flushing = group.create_task(self._journal.keep_flushing())
                    case Stepped() if self._journal:
                        self._journal.note(message)
                    case Validated() if self._journal:
                        self._journal.note_validation(message)
                    case Saved():
                        self._uploads.put_nowait(message)
                    case Finished():
                        finished = message
                    case Refused():
                        raise DataRefused(message.reason)
        if flushing:
            flushing.cancel()
        if began is None or finished is None or self._journal is None:
            raise Crashed(0, "it ended without a result")
        await self._patiently("last steps", self._journal.flush)
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
                    wanted = await store.cancel_wanted(connection, self._job.job_id)
            except PASSING:
                continue  # the next look will tell
            if wanted:
                raise CancelWanted

    async def _upload_all(self) -> None:
        while (saved := await self._uploads.get()) is not None:
            try:
                await self._keep(saved)
            except PASSING as error:
                # Training goes on: a missing checkpoint costs time after a crash, stopping costs it now.
                log.warning("checkpoint was not stored", job=self._job.job_id, step=saved.step, reason=repr(error))

    async def _keep(self, saved: Saved) -> None:
        archive = await asyncio.to_thread(pack, saved.folder, self._folder / f"{saved.step}.tar")
        await asyncio.to_thread(shutil.rmtree, saved.folder)
        try:
            blob = await self._patiently(
                "checkpoint upload", lambda: self._service.blobs.put(f"resume/{self._job.job_id}", archive)
            )
        finally:
            archive.unlink()
        if self._journal:
            # Steps before a checkpoint are never done again, so they are written before it counts.
            await self._patiently("steps", self._journal.flush)
        stored = StoredCheckpoint(saved.step, saved.epoch, blob)
        superseded = await self._patiently("checkpoint record", lambda: self._record(stored))
        for old in superseded:
            # The object goes first: a record without it is skipped by whoever resumes and removed with the next one.
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
        return kept[self._job.configuration.keep_checkpoints :]

    async def _patiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        return await patiently(what, call, seconds=self._service.settings.patience_seconds)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that says most: losing the lease or being cancelled outrank the crash they cause."""
    leaves = list(_leaves(failures))
    for kind in (LeaseLost, CancelWanted):
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
