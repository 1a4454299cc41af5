"""HTTP in: training jobs. Scope `train`; a caller sees only the domains of its token."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from fastapi import APIRouter, Request, Response

from fleet_events import v1
from fleet_events.message import Event
from fleet_kit.auth import Caller
from fleet_kit.cloudevents import event_id
from fleet_kit.errors import Problem
from fleet_kit.http_openapi import reads_json
from services.trainer.datasets import api as data_api
from services.trainer.datasets import build_api
from services.trainer.datasets.answers import api as answer_api
from services.trainer.faults import Fault, InvalidRequest
from services.trainer.http_access import Limit, Trains
from services.trainer.jobs import domain, quotas, store
from services.trainer.jobs.acceptance import examine, faults_of
from services.trainer.jobs.access import visible_job
from services.trainer.jobs.domain import InvalidTransition, Job, JobState
from services.trainer.jobs.request import read_request
from services.trainer.jobs.schemas import Accepted, JobView, StateChangeReason
from services.trainer.parts import Trainer, TrainerService
from services.trainer.reports import api as reporting_api
from services.trainer.retraining import api as retraining_api
from services.trainer.runs import garbage_api
from services.trainer.runs.erasure import api as erasure_api

Changed: TypeAlias = tuple[Job, Event | None]
_CONFLICTS = {state: "Job has ended" if state.final else f"Job is {state}" for state in JobState}

router = APIRouter(prefix="/v1", tags=["training"])


@router.post("/jobs", status_code=202, summary="Queue a training job", openapi_extra=reads_json(v1.TrainingRequested))
async def submit_job(request: Request, response: Response, caller: Trains, trainer: Trainer) -> Accepted:
    """The body is a TrainingRequested. The job is trained by whichever worker claims it."""
    reading = read_request(await request.body())
    if reading.request is None:
        raise _unprocessable(reading.faults)
    requested, faults = reading.request, reading.faults
    if reading.named:
        caller.reach(requested.domain)
    requested = requested.model_copy(update={"requested_by": caller.subject, "job_id": requested.job_id or event_id()})
    job = domain.queue(requested, requested.job_id, datetime.now(UTC))
    async with trainer.transaction() as tx:
        if reading.named:
            job, found = await faults_of(job, tx.connection, trainer)
            faults += found
        else:
            faults += trainer.parts.checks.faults_of(requested)[1]
        if faults:
            raise _unprocessable(faults)
        if await store.add_job(tx.connection, job):
            await quotas.check_job(tx.connection, job.domain, trainer.settings, but=job.job_id)
            await tx.emit(domain.queued(job), entity=job.job_id)
        else:
            await _same_again(job, await store.locked(tx.connection, job.job_id))
    response.headers["Location"] = f"/v1/jobs/{job.job_id}"
    return Accepted(job_id=job.job_id, warnings=trainer.parts.checks.template.warnings)


@router.get("/jobs", summary="Jobs, newest first")
async def list_jobs(
    caller: Trains, trainer: Trainer, state: JobState | None = None, limit: Limit = 100
) -> dict[str, list[JobView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        jobs = await store.list_jobs(connection, caller.domain_filter, state, limit)
    return {"jobs": [JobView.of(job) for job in jobs]}


@router.get("/jobs/{job_id}", summary="State of a job")
async def get_job(job_id: str, caller: Trains, trainer: Trainer) -> JobView:
    return JobView.of(await visible_job(job_id, caller, trainer))


@router.post("/jobs/{job_id}/cancel", status_code=202, summary="Cancel a job")
async def cancel_job(job_id: str, caller: Trains, trainer: Trainer, body: StateChangeReason | None = None) -> JobView:
    """A queued or paused job is cancelled at once; a running one as soon as its worker has stopped."""

    def change(job: Job) -> Changed:
        return domain.ask_to_cancel(job, caller.subject, body.reason if body else "", datetime.now(UTC))

    return await _change(job_id, caller, trainer, change)


@router.post("/jobs/{job_id}/pause", status_code=202, summary="Pause a job")
async def pause_job(job_id: str, caller: Trains, trainer: Trainer, body: StateChangeReason | None = None) -> JobView:
    """A queued job is paused at once; a running one when it has stored a checkpoint behind its current step."""

    def change(job: Job) -> Changed:
        return domain.ask_to_pause(job, caller.subject, body.reason if body else "", datetime.now(UTC))

    return await _change(job_id, caller, trainer, change)


@router.post("/jobs/{job_id}/resume", status_code=202, summary="Resume a paused job")
async def resume_job(job_id: str, caller: Trains, trainer: Trainer) -> JobView:
    """It waits for a worker again, in its old place, and gives what it would have given without the pause."""
    return await _change(job_id, caller, trainer, domain.resume)


@router.post("/jobs/{job_id}/retry", status_code=202, summary="Queue a failed or cancelled job again")
async def retry_job(job_id: str, caller: Trains, trainer: Trainer) -> JobView:
    """It resumes from its newest checkpoint, for as long as the setting `resume_hours` keeps that.

    A request that would be refused today is refused here.
    """
    job = await visible_job(job_id, caller, trainer)
    try:
        async with trainer.transaction() as tx:
            await examine(job, tx.connection, trainer)
            await quotas.check_job(tx.connection, job.domain, trainer.settings, but=job_id)
    except InvalidRequest as invalid:
        raise _unprocessable(invalid.faults) from invalid
    return await _change(job_id, caller, trainer, domain.retry)


async def _change(job_id: str, caller: Caller, trainer: TrainerService, change: Callable[[Job], Changed]) -> JobView:
    await visible_job(job_id, caller, trainer)
    async with trainer.transaction() as tx:
        try:
            job, event = change(await store.locked(tx.connection, job_id))
        except InvalidTransition as invalid:
            raise Problem(409, _CONFLICTS[invalid.state], str(invalid), state=invalid.state) from invalid
        await store.save_job(tx.connection, job)
        if event is not None:
            await tx.emit(event, entity=job_id)
    return JobView.of(job)


async def _same_again(requested: Job, known: Job) -> None:
    if requested.request != known.request:
        raise Problem(
            409, "Job exists", f"job_id {requested.job_id!r} belongs to another request; leave it empty", field="job_id"
        )


def _unprocessable(faults: tuple[Fault, ...]) -> Problem:
    return Problem(
        422,
        "Invalid training request",
        "; ".join(map(str, faults)),
        field=faults[0].field,
        faults=[{"field": one.field, "value": one.value, "expected": one.expected} for one in faults],
    )


routes = APIRouter()
# Before the data sets: /v1/datasets/builds is no data set.
routes.include_router(build_api.router)
routes.include_router(data_api.router)
routes.include_router(answer_api.router)
routes.include_router(router)
routes.include_router(reporting_api.router)
routes.include_router(garbage_api.router)
routes.include_router(erasure_api.router)
routes.include_router(retraining_api.router)
