"""A training job's life as pure transitions: (job, input) → job and the event that says it."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from fleet_events import v1
from services.trainer.configuration import Configuration, resolve

MAX_STALLED = 5
"""Attempts without a new checkpoint after which a job is given up."""


class JobState(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class InvalidTransition(Exception):
    """The job's state does not allow this."""

    def __init__(self, job: "Job", wanted: str) -> None:
        super().__init__(f"job {job.job_id} is {job.state}, so it cannot be {wanted}")
        self.state = job.state


@dataclass(frozen=True)
class Job:
    """One request to train, and how far it has come.

    `attempts` counts workers that took it up, `stalled` those since the last stored checkpoint. `dataset_id` and
    `base` are fixed by the first attempt: whoever resumes trains on the same data and the same weights.
    """

    job_id: str
    request: v1.TrainingRequested
    created_at: datetime
    state: JobState = JobState.QUEUED
    dataset_id: str | None = None
    base: v1.BaseModel | None = None
    attempts: int = 0
    stalled: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    error: str = ""
    cancel_by: str = ""
    cancel_reason: str = ""
    completed: v1.TrainingCompleted | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def domain(self) -> str:
        return self.request.domain

    @property
    def configuration(self) -> Configuration:
        return resolve(self.request.method, self.request.hyperparameters, self.request.objective)


def queue(request: v1.TrainingRequested, job_id: str, now: datetime) -> Job:
    """A new job. The request keeps the id, so that it reads the same whoever chose it."""
    return Job(job_id=job_id, request=request.model_copy(update={"job_id": job_id}), created_at=now)


def queued(job: Job) -> v1.TrainingQueued:
    """Says that the job waits for a worker."""
    return v1.TrainingQueued(job_id=job.job_id, domain=job.domain, priority=job.request.priority)


def take_up(job: Job, now: datetime) -> Job:
    """A worker begins, or goes on where a lost one stopped."""
    if job.state.final:
        raise InvalidTransition(job, "taken up")
    return replace(
        job,
        state=JobState.RUNNING,
        attempts=job.attempts + 1,
        stalled=job.stalled + 1,
        started_at=job.started_at or now,
    )


def exhausted(job: Job) -> bool:
    """Whether another attempt would be one too many."""
    return job.stalled >= MAX_STALLED


def settle_inputs(job: Job, dataset_id: str, base: v1.BaseModel) -> Job:
    """Fix what is trained: which data, which weights."""
    _must_run(job, "given its data")
    if job.dataset_id not in (None, dataset_id):
        raise InvalidTransition(job, f"moved from data set {job.dataset_id} to {dataset_id}")
    if job.base not in (None, base):
        raise InvalidTransition(job, f"resumed on another base model: {base.name} {base.revision}")
    return replace(job, dataset_id=dataset_id, base=base)


def begin(job: Job, dataset: v1.Dataset, total_steps: int, resumed_step: int) -> tuple[Job, v1.TrainingStarted]:
    """The first step of this attempt is next."""
    _must_run(job, "begun")
    if job.base is None or job.dataset_id != dataset.dataset_id:
        raise InvalidTransition(job, "begun before its data and base model are settled")
    begun = replace(job, step=resumed_step, total_steps=total_steps)
    return begun, v1.TrainingStarted(
        job_id=job.job_id,
        domain=job.domain,
        dataset=dataset,
        base_model=job.base,
        total_steps=total_steps,
        attempt=job.attempts,
        resumed_step=resumed_step,
    )


def advance(job: Job, step: int, loss: float) -> Job:
    """So many steps are done."""
    _must_run(job, "advanced")
    return replace(job, step=step, loss=loss)


def keep_checkpoint(job: Job) -> Job:
    """A checkpoint is stored: the job moves, however often its workers die."""
    _must_run(job, "checkpointed")
    return replace(job, stalled=0)


def succeed(job: Job, completed: v1.TrainingCompleted, now: datetime) -> Job:
    """The adapter is stored with everything that proves where it comes from."""
    _must_run(job, "succeeded")
    return replace(job, state=JobState.SUCCEEDED, completed=completed, step=job.total_steps, error="", finished_at=now)


def fail(job: Job, reason: str, now: datetime) -> tuple[Job, v1.TrainingFailed]:
    """The job cannot succeed."""
    if job.state.final:
        raise InvalidTransition(job, "failed")
    failed = replace(job, state=JobState.FAILED, error=reason, finished_at=now)
    return failed, v1.TrainingFailed(job_id=job.job_id, domain=job.domain, reason=reason, attempt=job.attempts)


def ask_to_cancel(job: Job, by: str, reason: str, now: datetime) -> tuple[Job, v1.TrainingCancelled | None]:
    """A queued job ends at once; a running one is ended by its worker, which says so when the work has stopped."""
    if job.state.final:
        raise InvalidTransition(job, "cancelled")
    asked = replace(job, cancel_by=job.cancel_by or by, cancel_reason=job.cancel_reason or reason)
    return (asked, None) if job.state is JobState.RUNNING else cancel(asked, now)


def cancel(job: Job, now: datetime) -> tuple[Job, v1.TrainingCancelled]:
    """The work has stopped."""
    if job.state.final or not job.cancel_by:
        raise InvalidTransition(job, "cancelled")
    cancelled = replace(job, state=JobState.CANCELLED, finished_at=now)
    return cancelled, v1.TrainingCancelled(
        job_id=job.job_id, domain=job.domain, by=job.cancel_by, reason=job.cancel_reason
    )


def _must_run(job: Job, wanted: str) -> None:
    if job.state is not JobState.RUNNING:
        raise InvalidTransition(job, wanted)
