"""Events in."""

from datetime import UTC, datetime

from fleet_events.v1 import PreferenceRecorded, SampleRecorded, TrainingRequested
from fleet_kit.cloudevents import Envelope
from fleet_kit.errors import Refused
from fleet_kit.handlers import Handlers
from fleet_kit.transaction import Transaction
from fleet_kit.work import Work
from services.trainer import store
from services.trainer.dataset import InvalidSample, Preference, Sample
from services.trainer.job import job_id_of, run_job
from services.trainer.service import TrainerService

handlers: Handlers[TrainerService] = Handlers("trainer")


@handlers.on(SampleRecorded)
async def record_sample(event: SampleRecorded, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep a sample; the same pair recorded twice is one."""
    sample = Sample(event.domain, event.prompt, event.completion, event.rating, event.origin, event.sample_id)
    try:
        sample.check()
    except InvalidSample as error:
        raise Refused(str(error)) from error
    await store.add_samples(tx.connection, [sample], tx.cause.time if tx.cause else datetime.now(UTC))


@handlers.on(PreferenceRecorded)
async def record_preference(event: PreferenceRecorded, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep a preference pair for preference training."""
    preference = Preference(event.domain, event.prompt, event.chosen, event.rejected, event.origin)
    try:
        preference.check()
    except InvalidSample as error:
        raise Refused(str(error)) from error
    await store.add_preference(tx.connection, preference)


def _job_lease(event: TrainingRequested, envelope: Envelope) -> str:
    return f"job:{job_id_of(event, envelope)}"


@handlers.long(TrainingRequested, lease=_job_lease)
async def train(event: TrainingRequested, work: Work, service: TrainerService) -> None:
    """Train, on one worker at a time, until the job has succeeded, failed or been cancelled."""
    await run_job(event, work, service)
