"""The long work behind a ticket: claim the next job, choose its data, attempt until done, end in one transaction."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from fleet_events import v1
from fleet_events.message import Event
from fleet_kit.errors import LeaseLost
from fleet_kit.faults import is_transient
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.trainer.child_process import Crashed
from services.trainer.datasets.dataset import StoredDataset
from services.trainer.datasets.selection import freeze_selection
from services.trainer.faults import InvalidRequest
from services.trainer.jobs import domain, job_queue, store
from services.trainer.jobs.acceptance import examine
from services.trainer.jobs.domain import InvalidTransition, Job, JobState
from services.trainer.reports import publish
from services.trainer.retry import PASSING, patiently
from services.trainer.runs import resume_data
from services.trainer.runs.attempt import Attempt, CancelWanted, DataRefused, PauseTaken
from services.trainer.runs.context import RunContext
from services.trainer.tickets import claimed
from services.trainer.training.objectives.table import objective_named
from services.trainer.training.protocol import Outcome
from services.trainer.work_folder import work_folder

log = structlog.get_logger()

End = Callable[[Job, datetime], tuple[Job, Event]]

_NOT_WRITTEN: tuple[type[BaseException], ...] = (LeaseLost, *PASSING)
_LOOK_SECONDS = 0.05
_REST_SECONDS = 5.0


async def run_next_job(work: LeasedTask, service: RunContext) -> None:
    """Take the next job from its newest checkpoint to its end, or until it is paused.

    A ticket that finds no job waiting is spare: the job that it was written for was cancelled or paused, or another
    ticket has it.

    Raises:
        LeaseLost: another worker has the ticket, or the job.
        what passes by itself (see fleet_kit.settle): the job waits again, and the ticket comes again.
    """
    claimed_job = await _claim(work, service)
    if claimed_job is None:
        async with work.finish():
            return
    job, begun = claimed_job
    try:
        await _run(job, begun, work, service)
    except LeaseLost:
        raise
    except Exception as error:
        await _let_go(job.job_id, error, work)
        raise


async def _claim(work: LeasedTask, service: RunContext) -> tuple[Job, bool] | None:
    async def claim(tx: Transaction) -> tuple[Job, bool] | None:
        job = await job_queue.next_job(tx.connection)
        if job is None or not await work.take(tx, job_queue.lease_of(job.job_id)):
            return None
        return await _take_up(job, tx, service)

    return await claimed(work, claim, job_queue.any_waits, look_seconds=_LOOK_SECONDS)


async def _run(job: Job, begun: bool, work: LeasedTask, service: RunContext) -> None:
    job_id = job.job_id
    while begun:
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
            async with work.transaction() as tx:
                crashed = domain.crash(await store.locked(tx.connection, job_id), str(error), datetime.now(UTC))
                job, begun = await _take_up(crashed, tx, service)
    end = domain.cancel if job.cancel_by else domain.pause if job.pause_by else _exhausted(job)
    return await _end(job_id, end, work, service)


def _exhausted(job: Job) -> "End":
    last = job.error or "worker lost"
    return _failing(f"given up after {job.stalled} attempts without a new checkpoint; last: {last}")


async def _take_up(job: Job, tx: Transaction, service: RunContext) -> tuple[Job, bool]:
    """The locked job, and whether an attempt has begun: none does where the job is to end instead."""
    begun = not (job.cancel_by or job.pause_by or domain.exhausted(job))
    if begun:
        job = domain.take_up(job, datetime.now(UTC), service.parts.worker)
    await store.save_job(tx.connection, job)
    return job, begun


async def _let_go(job_id: str, error: Exception, work: LeasedTask) -> None:
    """Keep on the job why its attempt ended, since another ticket may take it up next."""
    try:
        async with work.transaction() as tx:
            job = await store.locked(tx.connection, job_id)
            if job.state is JobState.RUNNING:
                await store.save_job(tx.connection, domain.crash(job, repr(error)[:1000], datetime.now(UTC)))
    except _NOT_WRITTEN as unwritten:
        log.warning("attempt_end_not_recorded", job=job_id, reason=repr(unwritten))
    if is_transient(error):
        # The ticket comes again later, but the next one would have the job at once, and soon use up its attempts.
        await asyncio.sleep(_REST_SECONDS)


async def _attempt(job: Job, work: LeasedTask, service: RunContext) -> None:
    if not job.targets:
        job = await _accept(job.job_id, work, service)
    # Once more: the settings may have changed while it waited, for example the base model or what slots hold.
    service.parts.checks.examine(job.request, job.continued)
    data = await _settle_inputs(job, work, service)
    with work_folder(service.settings.cache_dir) as folder:
        outcome = await Attempt(job, data, folder, work, service).run()
        completed = await publish.publish(
            await _result(job.job_id, data, folder / "data.parquet", outcome, service), service
        )
        await _end(job.job_id, _succeeding(completed), work, service)
    await _drop_resume_data(job.job_id, service)


async def _accept(job_id: str, work: LeasedTask, service: RunContext) -> Job:
    """Settle a job that came over HTTP under an earlier release, which accepted it by an event of its own."""
    async with work.transaction() as tx:
        job = await examine(await store.locked(tx.connection, job_id), tx.connection, service)
        await store.save_job(tx.connection, job)
        return job


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
    settled = {"dataset_id": job.dataset_id, "distil_from": ""}
    request = job.request.model_copy(update=settled) if job.dataset_id else job.request
    data = await freeze_selection(request, objective_named(request.objective), service)
    async with work.transaction() as tx:
        begun = domain.settle_inputs(
            await store.locked(tx.connection, job.job_id), data.dataset.dataset_id, service.parts.checks.base
        )
        await store.save_job(tx.connection, begun)
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
        # A cancellation that came after the last step still counts: nothing was published yet.
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
