"""HTTP in: samples, data sets and training jobs. Scope `train`; a caller sees only the domains of its token."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from fleet_kit.auth import Caller, require
from fleet_kit.cloudevents import event_id
from fleet_kit.errors import Problem
from services.trainer import domain, store
from services.trainer.configuration import Fault, InvalidRequest
from services.trainer.domain import InvalidTransition, Job, JobState
from services.trainer.intake import DOMAIN, read_request, read_samples
from services.trainer.selection import named_dataset
from services.trainer.service import Trainer
from services.trainer.views import Accepted, CancelRequest, DatasetView, JobView, MetricView, SamplesView

router = APIRouter(prefix="/v1", tags=["training"])

Trains = Annotated[Caller, Depends(require("train"))]
Limit = Annotated[int, Query(ge=1, le=1000)]
_BATCH = 500


@router.post("/samples", status_code=201, summary="Record samples, one JSON object a line")
async def record_samples(
    request: Request, caller: Trains, trainer: Trainer, domain: Annotated[str | None, Query(pattern=DOMAIN)] = None
) -> SamplesView:
    """All lines are recorded or none. `?domain=` is the domain of lines that name none."""
    received, added, now = 0, 0, datetime.now(UTC)
    reached: set[str] = set()
    async with trainer.transaction() as tx:
        async for batch in read_samples(request.stream(), domain, size=_BATCH):
            for name in {sample.domain for sample in batch} - reached:
                caller.reach(name)
                reached.add(name)
            added += await store.add_samples(tx.connection, batch, now)
            received += len(batch)
    return SamplesView(received=received, added=added, duplicates=received - added)


@router.post("/jobs", status_code=202, summary="Queue a training job")
async def submit_job(request: Request, response: Response, caller: Trains, trainer: Trainer) -> Accepted:
    """The body is a TrainingRequested. The job is trained by whichever worker takes its event."""
    try:
        asked = read_request(await request.body(), trainer.parts)
        caller.reach(asked.domain)
        asked = asked.model_copy(update={"requested_by": caller.subject, "job_id": asked.job_id or event_id()})
        job = domain.queue(asked, asked.job_id, datetime.now(UTC))
        async with trainer.transaction() as tx:
            if asked.dataset_id:
                await named_dataset(tx.connection, asked)
            if await store.add_job(tx.connection, job):
                await tx.emit(asked, entity=job.job_id)
            else:
                await _same_again(job, await store.locked(tx.connection, job.job_id))
    except InvalidRequest as invalid:
        raise _unprocessable(invalid.faults) from invalid
    response.headers["Location"] = f"/v1/jobs/{job.job_id}"
    return Accepted(job_id=job.job_id)


@router.get("/jobs", summary="Jobs, newest first")
async def list_jobs(
    caller: Trains, trainer: Trainer, state: JobState | None = None, limit: Limit = 100
) -> dict[str, list[JobView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        jobs = await store.list_jobs(connection, _domains(caller), state, limit)
    return {"jobs": [JobView.of(job) for job in jobs]}


@router.get("/jobs/{job_id}", summary="Where a job stands")
async def get_job(job_id: str, caller: Trains, trainer: Trainer) -> JobView:
    return JobView.of(await _job(job_id, caller, trainer))


@router.get("/jobs/{job_id}/metrics", summary="Loss, learning rate, gradient norm and speed of every step")
async def get_metrics(
    job_id: str, caller: Trains, trainer: Trainer, after: Annotated[int, Query(ge=0)] = 0
) -> dict[str, list[MetricView]]:
    """Readable while the job runs; `?after=` gives only what came since a step."""
    await _job(job_id, caller, trainer)
    async with trainer.db.acquire(timeout=5) as connection:
        steps = await store.list_steps(connection, job_id, after)
    return {"metrics": [MetricView.of(step) for step in steps]}


@router.get("/jobs/{job_id}/report", summary="Report of a finished job")
async def get_report(job_id: str, caller: Trains, trainer: Trainer) -> Response:
    job = await _job(job_id, caller, trainer)
    if job.completed is None:
        raise Problem(404, "No report yet", f"job {job_id} is {job.state}; a report exists once it has succeeded")
    return Response(await trainer.blobs.get(job.completed.report), media_type="application/json")


@router.post("/jobs/{job_id}/cancel", status_code=202, summary="End a job")
async def cancel_job(job_id: str, caller: Trains, trainer: Trainer, body: CancelRequest | None = None) -> JobView:
    """A queued job is cancelled at once; a running one as soon as its worker has stopped."""
    await _job(job_id, caller, trainer)
    reason = body.reason if body else ""
    async with trainer.transaction() as tx:
        try:
            job, said = domain.ask_to_cancel(
                await store.locked(tx.connection, job_id), caller.subject, reason, datetime.now(UTC)
            )
        except InvalidTransition as invalid:
            raise Problem(409, "Job has ended", str(invalid), state=invalid.state) from invalid
        await store.save_job(tx.connection, job)
        if said is not None:
            await tx.emit(said, entity=job_id)
    return JobView.of(job)


@router.get("/datasets", summary="Frozen data sets, newest first")
async def list_datasets(caller: Trains, trainer: Trainer, limit: Limit = 100) -> dict[str, list[DatasetView]]:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await store.list_datasets(connection, _domains(caller), limit)
    return {"datasets": [DatasetView.of(one) for one in found]}


@router.get("/datasets/{dataset_id}", summary="A frozen data set")
async def get_dataset(dataset_id: str, caller: Trains, trainer: Trainer) -> DatasetView:
    async with trainer.db.acquire(timeout=5) as connection:
        found = await store.find_dataset(connection, dataset_id)
    if found is None or not caller.reaches(found.domain):
        raise Problem(404, "Data set not found", f"no data set {dataset_id!r} that this token reaches")
    return DatasetView.of(found)


async def _job(job_id: str, caller: Caller, trainer: Trainer) -> Job:
    async with trainer.db.acquire(timeout=5) as connection:
        job = await store.find_job(connection, job_id)
    # Another tenant's job reads like none, so that ids tell nothing.
    if job is None or not caller.reaches(job.domain):
        raise Problem(404, "Job not found", f"no job {job_id!r} that this token reaches")
    return job


async def _same_again(asked: Job, known: Job) -> None:
    if asked.request != known.request:
        raise Problem(
            409, "Job exists", f"job_id {asked.job_id!r} belongs to another request; leave it empty", field="job_id"
        )


def _domains(caller: Caller) -> list[str] | None:
    return None if "*" in caller.domains else sorted(caller.domains)


def _unprocessable(faults: tuple[Fault, ...]) -> Problem:
    return Problem(
        422,
        "Invalid training request",
        "; ".join(map(str, faults)),
        field=faults[0].field,
        faults=[{"field": one.field, "value": one.value, "expected": one.expected} for one in faults],
    )
