"""TrainingRequested, answered at once: queued when it is valid as a whole, else failed with all that is wrong."""

import hashlib
import re
from datetime import UTC, datetime

from fleet_events import v1
from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Connection
from fleet_kit.errors import Problem, Refused, Unreadable
from fleet_kit.transaction import Transaction
from services.trainer import quotas
from services.trainer.datasets.selection import named_dataset
from services.trainer.jobs import domain, store
from services.trainer.jobs.compatibility import unvalidated
from services.trainer.jobs.continued import find_continued
from services.trainer.jobs.domain import Job, JobState
from services.trainer.jobs.export_checks import check_split
from services.trainer.jobs.request import read_request
from services.trainer.parts import TrainerService
from services.trainer.training.configuration import Fault, InvalidRequest

_FIT_AS_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")


async def accept(request: v1.TrainingRequested, envelope: Envelope, tx: Transaction, service: TrainerService) -> None:
    """Queue the job or fail it; a job that is known already is queued again unless it has ended.

    Raises:
        Refused: the id belongs to another request.
    """
    now = datetime.now(UTC)
    asked = domain.queue(request, job_id_of(request, envelope), now)
    await store.add_job(tx.connection, asked)
    job = await store.locked(tx.connection, asked.job_id)
    if job.request != asked.request:
        raise Refused(f"job_id {asked.job_id!r} belongs to another request; choose another id, or leave it empty")
    if job.state is not JobState.QUEUED:
        return
    try:
        job = await examine(job, tx.connection, service)
        await quotas.check_job(tx.connection, job.domain, service.settings, but=job.job_id)
    except (InvalidRequest, Problem) as invalid:
        failed, said = domain.fail(job, str(invalid), now)
        await store.save_job(tx.connection, failed)
        await tx.emit(said, entity=job.job_id)
        return
    await store.save_job(tx.connection, job)
    await tx.emit(domain.queued(job), entity=job.job_id)


async def reject(body: bytes, broken: Unreadable, tx: Transaction, service: TrainerService) -> None:
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
    failed, said = domain.fail(job, str(InvalidRequest(faults)), now)
    await store.save_job(tx.connection, failed)
    await tx.emit(said, entity=job.job_id)


async def examine(job: Job, connection: Connection, service: TrainerService) -> Job:
    """The job with what it continues; raises `InvalidRequest` with all that can be known to be wrong before it runs."""
    settled, faults = await faults_of(job, connection, service)
    if faults:
        raise InvalidRequest(faults)
    return settled


async def faults_of(job: Job, connection: Connection, service: TrainerService) -> tuple[Job, tuple[Fault, ...]]:
    """The job with what it continues, and everything that is wrong with its request."""
    faults: list[Fault] = []
    continued, dataset = job.continued, None
    try:
        continued = continued or await find_continued(connection, job.request, service.parts.base)
    except InvalidRequest as unknown:
        faults += unknown.faults
    configuration, wrong = service.parts.faults_of(job.request, continued)
    faults += (*wrong, *service.parts.faults_of_size(job.request, configuration))
    if job.request.dataset_id:
        try:
            dataset = (await named_dataset(connection, job.request)).dataset
            faults += check_split(job.request, configuration, dataset)
        except InvalidRequest as unknown:
            faults += unknown.faults
    if dataset is not None or not job.request.dataset_id:
        faults += unvalidated(job.request, split=dataset is not None and dataset.validation_samples > 0)
    return domain.settle_start(job, continued, service.parts.targets), tuple(faults)


def job_id_of(request: v1.TrainingRequested, envelope: Envelope) -> str:
    """The id a requester chose, else the event's own name, which is the same at every redelivery."""
    if request.job_id:
        return request.job_id
    if _FIT_AS_ID.fullmatch(envelope.name):
        return envelope.name
    # Anything may be an event id; a job id is also part of object names.
    return hashlib.sha256(envelope.name.encode()).hexdigest()
