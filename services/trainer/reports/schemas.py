"""A job's progress over HTTP: the same objects as an answer and as a stream."""

from typing import Literal, Self

from pydantic import Field

from services.trainer.jobs.domain import Job, JobState
from services.trainer.schemas import View
from services.trainer.training.protocol import Stepped, Validated


class MetricView(View):
    """One optimizer step."""

    kind: Literal["step"] = "step"
    step: int
    epoch: float
    loss: float = Field(description="Nats per trained token, mean of the step")
    learning_rate: float
    gradient_norm: float = Field(description="Before it was scaled down")
    tokens_per_second: float
    peak_memory_bytes: int = Field(description="Of the training process so far; 0 where it was not measured")

    @classmethod
    def of(cls, step: Stepped) -> Self:
        return cls(
            step=step.step,
            epoch=step.epoch,
            loss=step.loss,
            learning_rate=step.learning_rate,
            gradient_norm=step.gradient_norm,
            tokens_per_second=step.tokens / step.seconds if step.seconds else 0.0,
            peak_memory_bytes=step.peak_memory_bytes,
        )


class ValidationView(View):
    """One measure of the validation split."""

    kind: Literal["validation"] = "validation"
    step: int
    epoch: float
    loss: float
    seconds: float
    best: bool = Field(description="Whether no validation before had a lower loss")
    metrics: dict[str, float] = Field(description="The objective's own: accuracy of pairs, Kendall tau …")

    @classmethod
    def of(cls, validated: Validated) -> Self:
        return cls(**validated.model_dump(exclude={"kind"}))


class StateView(View):
    """Where the job stands. Nothing follows a final one."""

    kind: Literal["state"] = "state"
    state: JobState
    final: bool
    total_steps: int
    attempts: int
    reason: str | None = Field(description="Why it failed, or what went wrong last")

    @classmethod
    def of(cls, job: Job) -> Self:
        return cls(
            state=job.state,
            final=job.state.final,
            total_steps=job.total_steps,
            attempts=job.attempts,
            reason=job.error or None,
        )


class Course(View):
    """What a job has logged so far."""

    metrics: list[MetricView]
    validations: list[ValidationView]
