"""Events in."""

from datetime import UTC, datetime

from fleet_events.v1 import (
    AdapterActivated,
    AdapterDeactivated,
    AdapterRegistered,
    AdapterReleased,
    DatasetQueued,
    ErasureQueued,
    FeedbackRecorded,
    GenerationRecorded,
    GoldenDatasetPublished,
    PreferenceRecorded,
    SampleRecorded,
    SubjectErased,
    TrainingQueued,
    TrainingRequested,
)
from fleet_kit.cloudevents import Envelope
from fleet_kit.errors import Refused
from fleet_kit.handlers import Handlers
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction
from services.trainer.datasets.answers.intake import take_answer, take_feedback
from services.trainer.datasets.build_job import run_next_build
from services.trainer.datasets.dataset import InvalidSample, Preference, Sample
from services.trainer.datasets.golden.known import remember
from services.trainer.datasets.store import samples as store
from services.trainer.jobs import store as jobs_store
from services.trainer.jobs.acceptance import accept, reject
from services.trainer.parts import TrainerService
from services.trainer.retraining import following
from services.trainer.retraining.store import evidence
from services.trainer.runs import garbage_store
from services.trainer.runs.erasure.late import admitted
from services.trainer.runs.erasure.work import erase, note_service_erased
from services.trainer.runs.job_run import run_next_job

handlers: Handlers[TrainerService] = Handlers("trainer")


@handlers.on(SampleRecorded)
async def record_sample(event: SampleRecorded, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep a sample; the same pair recorded twice is one."""
    sample = Sample(event.domain, event.prompt, event.completion, event.rating, event.origin, event.sample_id)
    try:
        sample.check()
    except InvalidSample as error:
        raise Refused(str(error)) from error
    if await admitted(event, "sample", sample.sample_id, tx):
        await store.add_samples(tx.connection, [sample], tx.cause.time if tx.cause else datetime.now(UTC))


@handlers.on(PreferenceRecorded)
async def record_preference(event: PreferenceRecorded, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep a preference pair for preference training."""
    preference = Preference(event.domain, event.prompt, event.chosen, event.rejected, event.origin)
    try:
        preference.check()
    except InvalidSample as error:
        raise Refused(str(error)) from error
    if await admitted(event, "preference", preference.preference_id, tx):
        await store.add_preference(tx.connection, preference)


@handlers.on(TrainingRequested, unreadable=reject)
async def accept_job(event: TrainingRequested, tx: Transaction, service: TrainerService) -> None:
    """Queue a valid job; fail another with everything that is wrong with it."""
    if tx.cause is None:
        raise LookupError("a training request came without its envelope")
    other = await following.trained_by(event, tx, service)
    refused = (
        f"no second training: job {other} of the domain's retraining rules follows this base model" if other else ""
    )
    if await accept(event, tx.cause, tx, service, refused=refused):
        await following.answer(event, tx, service)


def _job_ticket(event: TrainingQueued, envelope: Envelope) -> str:  # noqa: ARG001
    return f"job-ticket:{envelope.id}"


@handlers.long(TrainingQueued, lease=_job_ticket)
async def train(event: TrainingQueued, work: LeasedTask, service: TrainerService) -> None:  # noqa: ARG001
    """Train the job that is next, which need not be the one that this event was written for, until it has ended."""
    await run_next_job(work, service)


def _build_ticket(event: DatasetQueued, envelope: Envelope) -> str:  # noqa: ARG001
    return f"build-ticket:{envelope.id}"


@handlers.long(DatasetQueued, lease=_build_ticket)
async def build_dataset(event: DatasetQueued, work: LeasedTask, service: TrainerService) -> None:  # noqa: ARG001
    """Build the recipe that is next, which need not be the one that this event was written for."""
    await run_next_build(work, service)


@handlers.on(GenerationRecorded)
async def record_answer(event: GenerationRecorded, tx: Transaction, service: TrainerService) -> None:
    """Keep an answer of the fleet, and use the feedback on it that came before."""
    if await admitted(event, "answer", event.generation_id, tx):
        await take_answer(event, tx, service.blobs)


@handlers.on(FeedbackRecorded)
async def record_feedback(event: FeedbackRecorded, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """A rating counts for the adapter; feedback on a recorded answer, or with its own text, becomes live records."""
    if not await admitted(event, "feedback", event.generation_id, tx):
        return
    if event.adapter_id and event.rating:
        await evidence.add_rating(tx.connection, event)
    await take_feedback(event, tx)


def _erasure_ticket(event: ErasureQueued, envelope: Envelope) -> str:  # noqa: ARG001
    return f"erasure:{event.erasure_id}"


@handlers.long(ErasureQueued, lease=_erasure_ticket)
async def erase_subject(event: ErasureQueued, work: LeasedTask, service: TrainerService) -> None:
    """Erase everything that is recorded about a person, wherever a killed worker left off."""
    await erase(event.erasure_id, work, service)


@handlers.on(SubjectErased)
async def note_erased(event: SubjectErased, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep that a service has erased what it held."""
    await note_service_erased(event, tx.connection)


@handlers.on(AdapterRegistered)
async def remember_adapter(event: AdapterRegistered, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep which job made an adapter, so that a request can continue it by its id."""
    await jobs_store.add_adapter(tx.connection, event)


@handlers.on(AdapterReleased)
async def release_files(event: AdapterReleased, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep that a job's files may be deleted; the next collection after the grace time does."""
    if event.job_id:
        await garbage_store.add_release(tx.connection, event.job_id, event.adapter_id)


@handlers.on(AdapterActivated)
async def remember_activation(event: AdapterActivated, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep which version answers for its family: it is trained further by the domain's retraining rules."""
    await evidence.save_activation(tx.connection, event, tx.cause.time if tx.cause else datetime.now(UTC))


@handlers.on(AdapterDeactivated)
async def forget_activation(event: AdapterDeactivated, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep that no version answers for the family, until another one does."""
    await evidence.save_deactivation(tx.connection, event, tx.cause.time if tx.cause else datetime.now(UTC))


@handlers.on(GoldenDatasetPublished)
async def remember_golden(event: GoldenDatasetPublished, tx: Transaction, service: TrainerService) -> None:  # noqa: ARG001
    """Keep the prints of a golden data set: no record that overlaps it is trained on, in any domain."""
    try:
        await remember(tx.connection, event)
    except ValueError as error:
        raise Refused(f"prints: {error}, expected base64 in each signature") from error
