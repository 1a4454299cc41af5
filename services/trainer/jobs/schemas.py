"""What the HTTP answers look like."""

from datetime import datetime
from typing import Self

from pydantic import Field

from fleet_events import v1
from services.trainer.jobs.domain import AttemptOutcome, Job, JobState
from services.trainer.schemas import BlobView, View


class Accepted(View):
    """A queued job. `warnings`: what may not come out as the requester expects."""

    job_id: str
    warnings: tuple[str, ...] = ()


class StateChangeReason(View):
    """Why a job is cancelled or paused."""

    reason: str = Field(default="", max_length=1000)


class BaseModelView(View):
    """The pinned base model."""

    name: str
    revision: str


class AttemptView(View):
    """One worker's time with a job; `number` is 0 where the job ended before any worker had it."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    reason: str


class JobView(View):
    """Where a job stands."""

    job_id: str
    state: JobState
    domain: str
    method: str
    step: int
    total_steps: int
    loss: float | None
    attempts: int
    dataset: str | None
    base_model: BaseModelView | None
    configuration: dict[str, object]
    error: str | None
    cancel_requested_by: str | None
    pause_requested_by: str | None
    priority: int
    objective: str
    continued_from: str | None
    reason: str | None = Field(description="Why retraining rules requested it; null for a person's request")
    triggers: tuple[v1.RetrainingTrigger, ...]
    history: list[AttemptView]
    artifact: BlobView | None
    checkpoint: BlobView | None
    report: BlobView | None
    report_page: BlobView | None
    model_card: BlobView | None
    exports: tuple[v1.Export, ...]
    metrics: dict[str, float]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> Self:
        done = job.completed
        return cls(
            job_id=job.job_id,
            state=job.state,
            domain=job.domain,
            method=job.configuration.method,
            step=job.step,
            total_steps=job.total_steps,
            loss=job.loss,
            attempts=job.attempts,
            dataset=job.dataset_id,
            base_model=BaseModelView(name=job.base.name, revision=job.base.revision) if job.base else None,
            configuration=job.configuration.values(),
            error=job.error or None,
            cancel_requested_by=job.cancel_by or None,
            pause_requested_by=job.pause_by or None,
            priority=job.priority,
            objective=job.configuration.objective,
            continued_from=job.request.continue_from or None,
            reason=job.request.reason or None,
            triggers=job.request.triggers,
            history=[AttemptView.model_validate(one, from_attributes=True) for one in job.history],
            artifact=BlobView.of(done.artifact.blob) if done else None,
            checkpoint=BlobView.of(done.checkpoint) if done else None,
            report=BlobView.of(done.report) if done else None,
            report_page=BlobView.of(done.report_page) if done and done.report_page else None,
            model_card=BlobView.of(done.model_card) if done and done.model_card else None,
            exports=done.exports if done else (),
            metrics=dict(done.metrics) if done else {},
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )
