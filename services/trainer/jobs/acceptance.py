"""TrainingRequested, answered at once: queued when it is valid as a whole, else failed with all that is wrong."""

import hashlib
import re
from datetime import UTC, datetime

from fleet_events import v1
from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Connection
from fleet_kit.errors import Refused
from fleet_kit.transaction import Transaction
from services.trainer import domain, store
from services.trainer.configuration import Fault, InvalidRequest
from services.trainer.data.selection import named_dataset
from services.trainer.domain import Job, JobState
from services.trainer.exports import check_split
from services.trainer.jobs.continued import find_continued
from services.trainer.service import TrainerService

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
    except InvalidRequest as invalid:
        failed, said = domain.fail(job, str(invalid), now)
        await store.save_job(tx.connection, failed)
        await tx.emit(said, entity=job.job_id)
        return
    await store.save_job(tx.connection, job)
    await tx.emit(domain.queued(job), entity=job.job_id)


async def examine(job: Job, connection: Connection, service: TrainerService) -> Job:
    """The job with what it continues; raises `InvalidRequest` with all that can be known to be wrong before it runs."""
    faults: list[Fault] = []
    continued = job.continued
    try:
        continued = continued or await find_continued(connection, job.request, service.parts.base)
    except InvalidRequest as unknown:
        faults += unknown.faults
    configuration = None
    try:
        configuration = service.parts.examine(job.request, continued)
    except InvalidRequest as invalid:
        faults += invalid.faults
    if job.request.dataset_id:
        try:
            named = await named_dataset(connection, job.request)
            faults += check_split(job.request, configuration, named.dataset) if configuration else ()
        except InvalidRequest as unknown:
            faults += unknown.faults
    if faults:
        raise InvalidRequest(tuple(faults))
    return domain.settle_continuation(job, continued)


def job_id_of(request: v1.TrainingRequested, envelope: Envelope) -> str:
    """The id a requester chose, else the event's own, which is the same at every redelivery."""
    if request.job_id:
        return request.job_id
    if _FIT_AS_ID.fullmatch(envelope.id):
        return envelope.id
    # Anything may be an event id; a job id is also part of object names.
    return hashlib.sha256(envelope.id.encode()).hexdigest()
