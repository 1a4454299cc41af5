"""The progress of a watched training, from the events of its stream. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lorafleet.errors import FleetError
from lorafleet.responses import Reply

Number = str | int | float | bool | None


class StepEvent(Reply):
    """An optimizer step."""

    kind: Literal["step"]
    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    peak_memory_bytes: int = 0


class ValidationEvent(Reply):
    """A measurement on the validation split."""

    kind: Literal["validation"]
    step: int
    loss: float
    best: bool = False
    metrics: dict[str, float] = Field(default_factory=dict)


class StateEvent(Reply):
    """The job's state; a final one is the last event."""

    kind: Literal["state"]
    state: str
    final: bool = False
    total_steps: int = 0
    reason: str | None = None


JobEvent = StepEvent | ValidationEvent | StateEvent
_EVENT: TypeAdapter[JobEvent] = TypeAdapter(Annotated[JobEvent, Field(discriminator="kind")])


def read_event(event: Mapping[str, object]) -> JobEvent:
    """One event of a job's stream; raises `FleetError` for anything else."""
    try:
        return _EVENT.validate_python(event)
    except ValidationError as error:
        raise FleetError(f"trainer: unexpected event in a job's stream: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: its newest step and validation, and its state."""

    state: StateEvent | None = None
    step: StepEvent | None = None
    validation: ValidationEvent | None = None

    @property
    def final(self) -> bool:
        return self.state is not None and self.state.final

    @property
    def last_event_id(self) -> str:
        """Id of the last event, after which an interrupted stream continues."""
        return f"{self.step.step if self.step else 0}.{self.validation.step if self.validation else 0}"

    @property
    def done(self) -> int:
        return self.step.step if self.step else 0

    @property
    def total(self) -> int:
        """Steps of the whole training, 0 while unknown."""
        return self.state.total_steps if self.state else 0

    @property
    def numbers(self) -> dict[str, Number]:
        """The newest numbers by name; those not yet measured are left out."""
        found: dict[str, Number] = {}
        if self.step is not None:
            found |= self.step.model_dump(include=set(StepEvent.model_fields) - {"kind", "step"})
        if self.validation is not None:
            found["validation_loss"] = self.validation.loss
        return found

    def after(self, event: JobEvent) -> JobProgress:
        """The progress after one more event."""
        match event:
            case StepEvent():
                return replace(self, step=event)
            case ValidationEvent():
                return replace(self, validation=event)
            case StateEvent():
                return replace(self, state=event)
