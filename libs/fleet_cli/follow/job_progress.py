"""A watched training: what its stream has told so far, as values. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fleet_cli.client.errors import Fault
from fleet_cli.client.responses import Reply

Number = str | int | float | bool | None


class StepTold(Reply):
    """An optimizer step."""

    kind: Literal["step"]
    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    peak_memory_bytes: int = 0


class ValidationTold(Reply):
    """A measure of the validation split."""

    kind: Literal["validation"]
    step: int
    loss: float
    best: bool = False
    metrics: dict[str, float] = Field(default_factory=dict)


class StateTold(Reply):
    """Where the job stands; a final one is the last that is told."""

    kind: Literal["state"]
    state: str
    final: bool = False
    total_steps: int = 0
    reason: str | None = None


Told = StepTold | ValidationTold | StateTold
_TOLD: TypeAdapter[Told] = TypeAdapter(Annotated[Told, Field(discriminator="kind")])


def read_told(event: Mapping[str, object]) -> Told:
    """One event of a job's stream; raises `Fault` for what is none."""
    try:
        return _TOLD.validate_python(event)
    except ValidationError as error:
        raise Fault(f"trainer: unexpected event in a job's stream: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True)
class Course:
    """How far a job has come: its newest step and validation, its state."""

    state: StateTold | None = None
    step: StepTold | None = None
    validation: ValidationTold | None = None

    @property
    def final(self) -> bool:
        return self.state is not None and self.state.final

    @property
    def place(self) -> str:
        """Id of the last event, behind which a stream that was cut off goes on."""
        return f"{self.step.step if self.step else 0}.{self.validation.step if self.validation else 0}"

    @property
    def done(self) -> int:
        return self.step.step if self.step else 0

    @property
    def total(self) -> int:
        """Steps of the whole training, 0 while nobody knows."""
        return self.state.total_steps if self.state else 0

    @property
    def numbers(self) -> dict[str, Number]:
        """The newest numbers by their names, as far as there are any."""
        found: dict[str, Number] = {}
        if self.step is not None:
            found |= self.step.model_dump(include=set(StepTold.model_fields) - {"kind", "step"})
        if self.validation is not None:
            found["validation_loss"] = self.validation.loss
        return found

    def told(self, event: Told) -> Course:
        """The course after one more event."""
        match event:
            case StepTold():
                return replace(self, step=event)
            case ValidationTold():
                return replace(self, validation=event)
            case StateTold():
                return replace(self, state=event)
