"""Writes what a running job logs: steps to the database as they come, progress events now and then."""

import asyncio
import time

import structlog

from fleet_events import v1
from fleet_kit.leased_task import LeasedTask
from services.trainer.jobs import domain, metrics, store
from services.trainer.retry import PASSING
from services.trainer.runs.settings import RunSettings
from services.trainer.training.protocol import Stepped, Validated

log = structlog.get_logger()


class ProgressLog:
    """The steps of one job that are not written yet. Writing is fenced by the job's lease."""

    def __init__(self, job: domain.Job, total_steps: int, work: LeasedTask, settings: RunSettings) -> None:
        self._job_id = job.job_id
        self._domain = job.domain
        self._total_steps = total_steps
        self._work = work
        self._settings = settings
        self._pending: list[Stepped] = []
        self._validated: list[Validated] = []
        self._published_at = time.monotonic()
        self._writing = asyncio.Lock()

    def note(self, step: Stepped) -> None:
        """Remember a step until the next flush."""
        self._pending.append(step)
        metrics.observe_step(step)

    def note_validation(self, validated: Validated) -> None:
        """Remember a validation until the next flush."""
        self._validated.append(validated)
        metrics.observe_validation(validated)

    async def keep_flushing(self) -> None:
        """Flush again and again. An unavailable database costs nothing: the steps stay pending."""
        while True:
            await asyncio.sleep(self._settings.flush_seconds)
            try:
                await self.flush()
            except PASSING as error:
                log.warning("steps_not_written_yet", job=self._job_id, reason=repr(error))

    async def flush(self) -> None:
        """Write what is pending in one transaction; raises `LeaseLost` when another worker has the job."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        steps, validated = tuple(self._pending), tuple(self._validated)
        if not steps:
            await self._write_validated(validated)
            return
        newest = steps[-1]
        due = time.monotonic() - self._published_at >= self._settings.progress_seconds
        async with self._work.transaction() as tx:
            job = await store.locked(tx.connection, self._job_id)
            await store.add_steps(tx.connection, self._job_id, steps)
            await store.add_validations(tx.connection, self._job_id, validated)
            await store.save_job(tx.connection, domain.advance(job, newest.step, newest.loss))
            if due:
                await tx.emit(self._progressed(steps, validated), entity=self._job_id)
        del self._pending[: len(steps)]
        del self._validated[: len(validated)]
        if due:
            self._published_at = time.monotonic()

    async def _write_validated(self, validated: tuple[Validated, ...]) -> None:
        if validated:
            async with self._work.transaction() as tx:
                await store.add_validations(tx.connection, self._job_id, validated)
            del self._validated[: len(validated)]

    def _progressed(self, steps: tuple[Stepped, ...], validated: tuple[Validated, ...]) -> v1.TrainingProgressed:
        newest = steps[-1]
        seconds = sum(step.seconds for step in steps)
        return v1.TrainingProgressed(
            job_id=self._job_id,
            domain=self._domain,
            step=newest.step,
            total_steps=self._total_steps,
            loss=newest.loss,
            learning_rate=newest.learning_rate,
            gradient_norm=newest.gradient_norm,
            tokens_per_second=sum(step.tokens for step in steps) / seconds if seconds else 0.0,
            validation_loss=validated[-1].loss if validated else None,
            peak_memory_bytes=newest.peak_memory_bytes,
        )
