"""A training job's life as pure transitions: (job, input) → job and the event that announces it."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from fleet_events import v1
from services.trainer.jobs.continuation import Continuation
from services.trainer.training.configuration import Configuration, resolve

MAX_STALLED = 5
"""Attempts without a new checkpoint after which a job is given up."""


class JobState(StrEnum):
    """Where a job stands. The last three are ends; only a retry leads back from the last two."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class AttemptOutcome(StrEnum):
    """How an attempt ended. `lost` is that of a worker that died with it."""

    LOST = "lost"
    CRASHED = "crashed"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class PastAttempt:
    """One worker's time with a job. `number` is 0 where the job ended before any worker had it."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None = None
    outcome: AttemptOutcome | None = None
    reason: str = ""


class InvalidTransition(Exception):
    """The job's state does not allow this."""

    def __init__(self, job: "Job", wanted: str) -> None:
        super().__init__(f"job {job.job_id} is {job.state}, so it cannot be {wanted}")
        self.state = job.state


@dataclass(frozen=True)
class Job:
    """One request to train, and how far it has come.

    `attempts` counts workers that took it up, `stalled` those since the last stored checkpoint. `dataset_id` and
    `base` are fixed by the first attempt: a worker that resumes it trains on the same data and the same weights.
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
    pause_by: str = ""
    pause_reason: str = ""
    history: tuple[PastAttempt, ...] = ()
    """Every attempt in order; the last one is open while a worker has the job."""
    continued: Continuation | None = None
    """The adapter that is trained further, settled when the job was accepted."""
    targets: tuple[str, ...] = ()
    """The base model's own layers, settled when the job was accepted: adapted where the request names none."""
    completed: v1.TrainingCompleted | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def domain(self) -> str:
        return self.request.domain

    @property
    def configuration(self) -> Configuration:
        """What it trains with: as requested, as inherited from what it continues, or by default."""
        request = self.request
        if self.continued is None:
            return resolve(request.method, request.hyperparameters, request.objective, self.targets)
        return self.continued.configure(request)

    @property
    def priority(self) -> int:
        return self.request.priority


def queue(request: v1.TrainingRequested, job_id: str, now: datetime) -> Job:
    """A new job. The request keeps the id, so that it is the same wherever it was chosen."""
    return Job(job_id=job_id, request=request.model_copy(update={"job_id": job_id}), created_at=now)


def queued(job: Job) -> v1.TrainingQueued:
    """The event that the job waits for a worker."""
    return v1.TrainingQueued(job_id=job.job_id, domain=job.domain, priority=job.request.priority)


def settle_start(job: Job, continued: Continuation | None, targets: tuple[str, ...]) -> Job:
    """Fix which adapter is trained further and what is adapted by default; of a job accepted before both stay."""
    return replace(job, continued=job.continued or continued, targets=job.targets or targets)


def take_up(job: Job, now: datetime, worker: str = "") -> Job:
    """A worker begins, or continues where a lost one stopped."""
    if job.state.final or job.state is JobState.PAUSED:
        raise InvalidTransition(job, "taken up")
    before = _closed(job, now, AttemptOutcome.LOST, "its worker was lost")
    return replace(
        job,
        state=JobState.RUNNING,
        attempts=job.attempts + 1,
        stalled=job.stalled + 1,
        started_at=job.started_at or now,
        history=(*before, PastAttempt(job.attempts + 1, worker, now)),
    )


def crash(job: Job, reason: str, now: datetime) -> Job:
    """The attempt was cut short, most often since the training process died; its worker or another may try again."""
    _must_run(job, "crashed")
    return replace(job, error=reason, history=_closed(job, now, AttemptOutcome.CRASHED, reason))


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
    return replace(
        job,
        state=JobState.SUCCEEDED,
        completed=completed,
        step=job.total_steps,
        error="",
        finished_at=now,
        history=_ended(job, now, AttemptOutcome.SUCCEEDED, ""),
    )


def fail(job: Job, reason: str, now: datetime) -> tuple[Job, v1.TrainingFailed]:
    """The job cannot succeed."""
    if job.state.final:
        raise InvalidTransition(job, "failed")
    history = _ended(job, now, AttemptOutcome.FAILED, reason)
    failed = replace(job, state=JobState.FAILED, error=reason, finished_at=now, history=history)
    return failed, v1.TrainingFailed(job_id=job.job_id, domain=job.domain, reason=reason, attempt=job.attempts)


def ask_to_cancel(job: Job, by: str, reason: str, now: datetime) -> tuple[Job, v1.TrainingCancelled | None]:
    """A job that waits ends at once; a running one is ended by its worker, which announces it once it has stopped."""
    if job.state.final:
        raise InvalidTransition(job, "cancelled")
    requested = replace(job, cancel_by=job.cancel_by or by, cancel_reason=job.cancel_reason or reason)
    return (requested, None) if job.state is JobState.RUNNING else cancel(requested, now)


def cancel(job: Job, now: datetime) -> tuple[Job, v1.TrainingCancelled]:
    """The work has stopped."""
    if job.state.final or not job.cancel_by:
        raise InvalidTransition(job, "cancelled")
    reason = f"cancelled by {job.cancel_by}" + (f": {job.cancel_reason}" if job.cancel_reason else "")
    history = _ended(job, now, AttemptOutcome.CANCELLED, reason)
    cancelled = replace(job, state=JobState.CANCELLED, finished_at=now, history=history)
    return cancelled, v1.TrainingCancelled(
        job_id=job.job_id, domain=job.domain, by=job.cancel_by, reason=job.cancel_reason
    )


def ask_to_pause(job: Job, by: str, reason: str, now: datetime) -> tuple[Job, v1.TrainingPaused | None]:
    """A queued job is paused at once; a running one when its worker has stored a checkpoint and stopped."""
    if job.state not in (JobState.QUEUED, JobState.RUNNING) or job.cancel_by:
        raise InvalidTransition(job, "paused")
    requested = replace(job, pause_by=job.pause_by or by, pause_reason=job.pause_reason or reason)
    return (requested, None) if job.state is JobState.RUNNING else pause(requested, now)


def pause(job: Job, now: datetime) -> tuple[Job, v1.TrainingPaused]:
    """The work is paused."""
    if job.state not in (JobState.QUEUED, JobState.RUNNING) or not job.pause_by:
        raise InvalidTransition(job, "paused")
    reason = f"paused by {job.pause_by}" + (f": {job.pause_reason}" if job.pause_reason else "")
    paused = replace(job, state=JobState.PAUSED, history=_closed(job, now, AttemptOutcome.PAUSED, reason))
    return paused, v1.TrainingPaused(
        job_id=job.job_id, domain=job.domain, by=job.pause_by, reason=job.pause_reason, step=job.step
    )


def resume(job: Job) -> tuple[Job, v1.TrainingQueued]:
    """A paused job waits for a worker again, in its old place."""
    if job.state is not JobState.PAUSED:
        raise InvalidTransition(job, "resumed")
    resumed = replace(job, state=JobState.QUEUED, stalled=0, pause_by="", pause_reason="")
    return resumed, queued(resumed)


def retry(job: Job) -> tuple[Job, v1.TrainingQueued]:
    """A failed or cancelled job waits for a worker again; why it ended stays in its history."""
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise InvalidTransition(job, "retried")
    waiting = replace(
        job,
        state=JobState.QUEUED,
        stalled=0,
        error="",
        cancel_by="",
        cancel_reason="",
        pause_by="",
        pause_reason="",
        finished_at=None,
    )
    return waiting, queued(waiting)


def _closed(job: Job, now: datetime, outcome: AttemptOutcome, reason: str) -> tuple[PastAttempt, ...]:
    """The history with its open attempt ended; as it is where none is open."""
    if not job.history or job.history[-1].ended_at is not None:
        return job.history
    return (*job.history[:-1], replace(job.history[-1], ended_at=now, outcome=outcome, reason=reason))


def _ended(job: Job, now: datetime, outcome: AttemptOutcome, reason: str) -> tuple[PastAttempt, ...]:
    """The history with the job's end in it, also where no worker had the job when it came."""
    closed = _closed(job, now, outcome, reason)
    if closed is not job.history:
        return closed
    return (*closed, PastAttempt(job.attempts, "", now, now, outcome, reason))


def _must_run(job: Job, wanted: str) -> None:
    if job.state is not JobState.RUNNING:
        raise InvalidTransition(job, wanted)
