"""TrainingRequested, answered at once: queued when it is valid as a whole, else failed with all that is wrong."""

import hashlib
import re
from datetime import UTC, datetime

import structlog

from fleet_events import v1
from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Connection
from fleet_kit.errors import Problem, Refused, Unreadable
from fleet_kit.transaction import Transaction
from services.trainer.datasets.generators.recipe import FLEET
from services.trainer.datasets.selection import DISTILS, named_dataset
from services.trainer.faults import Fault, InvalidRequest
from services.trainer.jobs import domain, quotas, store
from services.trainer.jobs.compatibility import unvalidated
from services.trainer.jobs.context import JobContext
from services.trainer.jobs.continuation import Continuation
from services.trainer.jobs.domain import Job, JobState
from services.trainer.jobs.export_checks import check_split
from services.trainer.jobs.request import read_request
from services.trainer.jobs.teacher import unserved
from services.trainer.training.objectives.table import objective_named

log = structlog.get_logger()
_FIT_AS_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")


async def accept(
    request: v1.TrainingRequested, envelope: Envelope, tx: Transaction, service: JobContext, *, refused: str = ""
) -> bool:
    """Queue the job or fail it; a job that is known already is queued again unless it has ended.

    Args:
        request: the job's.
        envelope: of the event that it came in.
        tx: to write in.
        service: the trainer.
        refused: what was expected instead of a job that must not be; it fails with that.

    Returns:
        Whether it was queued.

    Raises:
        Refused: the id belongs to another request.
    """
    now = datetime.now(UTC)
    requested = domain.queue(request, job_id_of(request, envelope), now)
    await store.add_job(tx.connection, requested)
    job = await store.locked(tx.connection, requested.job_id)
    if job.request != requested.request:
        raise Refused(f"job_id {requested.job_id!r} belongs to another request; choose another id, or leave it empty")
    if job.state is not JobState.QUEUED:
        return False
    try:
        if refused:
            raise InvalidRequest((Fault("triggers", ", ".join(request.triggers), refused),))
        job = await examine(job, tx.connection, service)
        await quotas.check_job(tx.connection, job.domain, service.settings, but=job.job_id)
    except (InvalidRequest, Problem) as invalid:
        failed, event = domain.fail(job, str(invalid), now)
        await store.save_job(tx.connection, failed)
        await tx.emit(event, entity=job.job_id)
        return False
    for warning in service.parts.checks.template.warnings:
        log.warning("job_accepted_with_warning", job_id=job.job_id, warning=warning)
    await store.save_job(tx.connection, job)
    await tx.emit(domain.queued(job), entity=job.job_id)
    return True


async def reject(body: bytes, broken: Unreadable, tx: Transaction, service: JobContext) -> None:
    """Fail the job of a request that breaks the contract, with that and all else that is wrong with it.

    Raises:
        Unreadable: it is not even known whose job that would be, or the id belongs to another one.
    """
    reading, now = read_request(body, newer=True), datetime.now(UTC)
    if reading.request is None or not reading.named or tx.cause is None:
        raise broken
    job = domain.queue(reading.request, job_id_of(reading.request, tx.cause), now)
    if not await store.add_job(tx.connection, job):
        raise broken
    faults = (*reading.faults, *(await faults_of(job, tx.connection, service))[1])
    failed, event = domain.fail(job, str(InvalidRequest(faults)), now)
    await store.save_job(tx.connection, failed)
    await tx.emit(event, entity=job.job_id)


async def examine(job: Job, connection: Connection, service: JobContext) -> Job:
    """The job with what it continues; raises `InvalidRequest` with all that can be known to be wrong before it runs."""
    settled, faults = await faults_of(job, connection, service)
    if faults:
        raise InvalidRequest(faults)
    return settled


async def faults_of(job: Job, connection: Connection, service: JobContext) -> tuple[Job, tuple[Fault, ...]]:
    """The job with what it continues, and everything that is wrong with its request."""
    faults: list[Fault] = []
    continued, dataset = job.continued, None
    try:
        continued = continued or await _find_continued(connection, job.request, service.parts.checks.base)
    except InvalidRequest as unknown:
        faults += unknown.faults
    configuration, wrong = service.parts.checks.faults_of(job.request, continued)
    faults += (*wrong, *service.parts.checks.faults_of_size(job.request, configuration))
    if job.request.dataset_id:
        try:
            dataset = (await named_dataset(connection, job.request, objective_named(job.request.objective))).dataset
            faults += check_split(job.request, configuration, dataset)
        except InvalidRequest as unknown:
            faults += unknown.faults
    faults += _undistillable(job.request, dataset, service)
    faults += await _dropped_teacher(connection, job.request)
    if job.request.distil_from and not any(one.field == "distil_from" for one in faults):
        faults += await unserved(job.request.distil_from, job.domain, service)
    kind = dataset.kind if dataset is not None else ""
    faults += service.parts.checks.template.faults(service.parts.checks.base.name, job.request.dataset_id, kind)
    if dataset is not None or not job.request.dataset_id:
        faults += unvalidated(job.request, split=dataset is not None and dataset.validation_samples > 0)
    return domain.settle_start(job, continued, service.parts.checks.targets), tuple(faults)


def _undistillable(request: v1.TrainingRequested, dataset: v1.Dataset | None, service: JobContext) -> list[Fault]:
    """Why an adapter's answers cannot take the place of a data set's."""
    if not request.distil_from:
        return []
    faults = []
    if not request.dataset_id:
        faults.append(Fault("dataset_id", "", "the data set whose prompts distil_from is to answer"))
    elif dataset is not None and dataset.kind not in DISTILS:
        kinds = " or ".join(DISTILS)
        faults.append(Fault("dataset_id", f"{dataset.dataset_id} ({dataset.kind})", f"one of kind {kinds} to distil"))
    if FLEET not in service.settings.generation_endpoints:
        expected = f"a trainer with an endpoint named {FLEET} in LORAFLEET_GENERATION_ENDPOINTS"
        faults.append(Fault("distil_from", request.distil_from, expected))
    return faults


async def _dropped_teacher(connection: Connection, request: v1.TrainingRequested) -> list[Fault]:
    """Why an adapter that was registered cannot answer any more. What nobody registered may be a base model's name."""
    teacher = await store.find_adapter(connection, request.distil_from) if request.distil_from else None
    if teacher is None:
        return []
    if teacher.adapter.domain != request.domain:
        return [Fault("distil_from", request.distil_from, f"the id of an adapter of domain {request.domain!r}")]
    if await store.is_released(connection, teacher.job_id):
        expected = "an adapter that still serves; this one was released, see its audit trail"
        return [Fault("distil_from", request.distil_from, expected)]
    return []


async def _find_continued(
    connection: Connection, request: v1.TrainingRequested, base: v1.BaseModel
) -> Continuation | None:
    """The adapter that a request wants trained further, by its own id or by that of its job; None for a new one.

    Raises:
        InvalidRequest: it is unknown, of another domain, unfinished, or made for other weights of the base model.
    """
    requested = request.continue_from
    if not requested:
        return None
    adapter = await store.find_adapter(connection, requested)
    job = await store.find_job(connection, adapter.job_id if adapter else requested)
    # Another domain's adapter reads like none: a domain is the tenancy boundary.
    if job is None or job.domain != request.domain:
        expected = f"the id of an adapter of domain {request.domain!r}, or of the job that trained it here"
        raise InvalidRequest((Fault("continue_from", requested, expected),))
    if job.completed is None:
        expected = f"a job that has succeeded; this one is {job.state}"
        raise InvalidRequest((Fault("continue_from", requested, expected),))
    if await store.is_released(connection, job.job_id):
        expected = "an adapter whose files are kept; this one was released, see its audit trail"
        raise InvalidRequest((Fault("continue_from", requested, expected),))
    return Continuation.of(requested, job.completed, base)


def job_id_of(request: v1.TrainingRequested, envelope: Envelope) -> str:
    """The id a requester chose, else the event's own name, which is the same at every redelivery."""
    if request.job_id:
        return request.job_id
    if _FIT_AS_ID.fullmatch(envelope.name):
        return envelope.name
    # Anything may be an event id; a job id is also part of object names.
    return hashlib.sha256(envelope.name.encode()).hexdigest()
