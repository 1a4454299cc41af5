"""The long work on a queued job: choose the data, attempt until done, end in one transaction."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from fleet_events import v1
from fleet_events.message import Event
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.trainer.child_process import Crashed
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.selection import freeze_selection
from services.trainer.faults import InvalidRequest
from services.trainer.jobs import domain, store
from services.trainer.jobs.domain import InvalidTransition, Job, JobState
from services.trainer.reports import publish
from services.trainer.retry import PASSING, patiently
from services.trainer.runs import resume_data
from services.trainer.runs.attempt import Attempt, CancelWanted, DataRefused, PauseTaken
from services.trainer.runs.context import RunContext
from services.trainer.training.objectives.table import objective_named
from services.trainer.training.protocol import Outcome
from services.trainer.work_folder import work_folder

log = structlog.get_logger()

End = Callable[[Job, datetime], tuple[Job, Event]]


async def run_job(job_id: str, work: LeasedTask, service: RunContext) -> None:
    """Take the job from wherever it stands to its end.

    Raises:
        NotYet: a job that goes before it waits.
        LeaseLost: another worker has the job.
        what passes by itself (see fleet_kit.settle): the message comes again and the job goes on.
    """
    await service.parts.turn.wait(job_id, service)
    while True:
        job, taken = await _take_up(job_id, work, service)
        if not taken:
            return await _leave(job, work, service)
        try:
            return await _attempt(job, work, service)
        except CancelWanted:
            return await _end(job_id, domain.cancel, work, service)
        except PauseTaken:
            return await _end(job_id, domain.pause, work, service)
        except (InvalidRequest, InvalidTransition, DataRefused) as error:
            return await _end(job_id, _failing(str(error)), work, service)
        except Crashed as error:
            log.warning("training_process_died", job=job_id, attempt=job.attempts, reason=str(error))
            await _remember(job_id, str(error), work)


async def give_up_job(job_id: str, reason: str, work: LeasedTask) -> None:
    """Fail a job whose workers were killed before they could take it up."""
    async with work.transaction() as tx:
        resting = (await store.locked(tx.connection, job_id)).state
    if resting.final or resting is JobState.PAUSED:
        async with work.finish():
            return
    async with work.finish() as tx:
        await _write_end(tx, job_id, _failing(reason))


async def _leave(job: Job, work: LeasedTask, service: RunContext) -> None:
    """A job that is not trained now: it has ended or rests, shall do so, or was tried too often."""
    if job.state.final or job.state is JobState.PAUSED:
        # Before anybody took it up, or it was queued under two events.
        async with work.finish():
            return
    end = domain.cancel if job.cancel_by else domain.pause if job.pause_by else _exhausted(job)
    await _end(job.job_id, end, work, service)


def _exhausted(job: Job) -> "End":
    last = job.error or "worker lost"
    return _failing(f"given up after {job.stalled} attempts without a new checkpoint; last: {last}")


async def _take_up(job_id: str, work: LeasedTask, service: RunContext) -> tuple[Job, bool]:
    """The job, and whether this attempt may go on; it may not when the job has ended, shall rest or is exhausted."""
    async with work.transaction() as tx:
        job = await store.locked(tx.connection, job_id)
        resting = job.state.final or job.state is JobState.PAUSED
        if resting or job.cancel_by or job.pause_by or domain.exhausted(job):
            return job, False
        job = domain.take_up(job, datetime.now(UTC), service.parts.worker)
        await store.save_job(tx.connection, job)
        await work.progress(tx)  # from here on the job counts its own attempts
        return job, True


async def _remember(job_id: str, error: str, work: LeasedTask) -> None:
    async with work.transaction() as tx:
        job = await store.locked(tx.connection, job_id)
        await store.save_job(tx.connection, domain.crash(job, error, datetime.now(UTC)))


async def _attempt(job: Job, work: LeasedTask, service: RunContext) -> None:
    service.parts.checks.examine(job.request, job.continued)
    data = await _settle_inputs(job, work, service)
    with work_folder(service.settings.cache_dir) as folder:
        outcome = await Attempt(job, data, folder, work, service).run()
        completed = await publish.publish(
            await _result(job.job_id, data, folder / "data.parquet", outcome, service), service
        )
        await _end(job.job_id, _succeeding(completed), work, service)
    await _drop_resume_data(job.job_id, service)


async def _drop_resume_data(job_id: str, service: RunContext) -> None:
    """A job that has succeeded needs none; one that was cancelled at its last moment keeps them for a retry."""
    try:
        async with service.db.acquire(timeout=5) as connection:
            job = await store.find_job(connection, job_id)
        if job is not None and job.state is JobState.SUCCEEDED:
            await resume_data.drop(job_id, service)
    except PASSING as error:
        log.warning("checkpoints_left_to_next_sweep", job=job_id, reason=repr(error))


async def _settle_inputs(job: Job, work: LeasedTask, service: RunContext) -> StoredDataset:
    """Choose data and weights at the first attempt; keep them at every later one."""
    request = job.request.model_copy(update={"dataset_id": job.dataset_id}) if job.dataset_id else job.request
    data = await freeze_selection(request, objective_named(request.objective), service)
    async with work.transaction() as tx:
        settled = domain.settle_inputs(
            await store.locked(tx.connection, job.job_id), data.dataset.dataset_id, service.parts.checks.base
        )
        await store.save_job(tx.connection, settled)
    return data


async def _result(
    job_id: str, data: StoredDataset, lines: Path, outcome: Outcome, service: RunContext
) -> publish.Result:
    async def read() -> publish.Result:
        async with service.db.acquire(timeout=5) as connection:
            job = await store.find_job(connection, job_id)
            if job is None:
                raise LookupError(f"job {job_id} is not in the database")
            steps = await store.list_steps(connection, job_id)
            validations = await store.list_validations(connection, job_id)
        return publish.Result(job, data, lines, outcome, steps, datetime.now(UTC), validations)

    return await patiently("logged steps", read, seconds=service.settings.patience_seconds)


def _succeeding(completed: v1.TrainingCompleted) -> End:
    def end(job: Job, now: datetime) -> tuple[Job, Event]:
        # A cancellation that came after the last step still counts: nothing was said yet.
        return domain.cancel(job, now) if job.cancel_by else (domain.succeed(job, completed, now), completed)

    return end


async def _end(job_id: str, end: End, work: LeasedTask, service: RunContext) -> None:
    """The job's last state and its event, in the transaction that also counts the request as handled."""

    async def finish() -> None:
        async with work.finish() as tx:
            await _write_end(tx, job_id, end)

    await patiently("end of job", finish, seconds=service.settings.patience_seconds)


async def _write_end(tx: Transaction, job_id: str, end: End) -> None:
    job = await store.locked(tx.connection, job_id)
    ended, event = end(job, datetime.now(UTC))
    await store.save_job(tx.connection, ended)
    await tx.emit(event, entity=job_id)


def _failing(reason: str) -> End:
    return lambda job, now: domain.fail(job, reason, now)
