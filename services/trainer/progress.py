"""What the training subprocess is told and what it says: one JSON file in, JSON lines out. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.trainer.configuration import Configuration


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class TrainingSpec(_Frozen):
    """One run of the subprocess.

    `work` is an empty folder of its own; `resume_from` an unpacked checkpoint folder; `supervisor` the process
    without which this run must not live.
    """

    job_id: str
    dataset: Path
    base_model: Path
    base_model_name: str
    configuration: Configuration
    work: Path
    resume_from: Path | None
    threads: int
    probe_prompt: str
    supervisor: int


class Began(_Frozen):
    """The data is tokenised and the first step is next."""

    kind: Literal["began"] = "began"
    total_steps: int
    resumed_step: int
    samples: int
    too_long: int
    longest: int
    """Tokens of the longest sample, left-out ones included."""
    tokens: int
    trained_tokens: int
    """Tokens of the completions, which alone have a loss."""


class Stepped(_Frozen):
    """One optimizer step. `tokens` are those of its rows without padding, `seconds` its own duration."""

    kind: Literal["stepped"] = "stepped"
    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float


class Saved(_Frozen):
    """A checkpoint folder is complete on disk: adapter, optimizer, scheduler, random state. The reader removes it."""

    kind: Literal["saved"] = "saved"
    step: int
    epoch: float
    folder: Path


class ProbeResult(_Frozen):
    """Last-position logits of the probe prompt with the adapter, and how far they are from the base model's."""

    prompt: str
    top_ids: tuple[int, ...]
    top_logits: tuple[float, ...]
    base_logits: tuple[float, ...]
    """The base model's logits of the same token ids."""
    max_delta: float


class Finished(_Frozen):
    """Training is over and its files lie on disk."""

    kind: Literal["finished"] = "finished"
    steps: int
    weights: Path
    config: Path
    artifact: Path
    artifact_digest: str
    probe: ProbeResult
    environment: dict[str, str]


class Refused(_Frozen):
    """The data or the model cannot be trained like this, whoever tries again."""

    kind: Literal["refused"] = "refused"
    reason: str


Progress = Annotated[Began | Stepped | Saved | Finished | Refused, Field(discriminator="kind")]

_progress: TypeAdapter[Progress] = TypeAdapter(Progress)


def read_line(line: bytes) -> Progress:
    """One line of the subprocess's standard output; raises `pydantic.ValidationError` if it is none of ours."""
    return _progress.validate_json(line)
