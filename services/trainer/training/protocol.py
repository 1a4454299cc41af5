"""What the training subprocess takes and emits: one JSON file in, JSON lines out, a file that requests a pause.

Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.trainer.datasets.golden.index import THRESHOLD
from services.trainer.training.configuration import Configuration

_PAUSE_FILE = "pause"  # in the work folder, which every launcher can reach


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class TrainingSpec(_Frozen):
    """One run of the subprocess.

    `work` is an empty folder of its own; `resume_from` an unpacked checkpoint folder; `best_from` the unpacked
    checkpoint with the best validation loss so far, where one was kept; `continue_from` a PEFT folder whose adapter is
    trained further; `supervisor` the process without which this run must not live; `adapter_type` chooses
    the quantisation profiles that exports are held to; `embedding_model` the folder of the model that the router
    compares queries with.
    """

    job_id: str
    dataset: Path
    base_model: Path
    base_model_name: str
    configuration: Configuration
    work: Path
    resume_from: Path | None
    best_from: Path | None = None
    continue_from: Path | None = None
    exports: tuple[str, ...] = ()
    adapter_type: str = ""
    embedding_model: Path | None = None
    golden: Path | None = None
    """Prints of all golden data sets, which `dataset` must hold nothing of; None where there is none."""
    golden_threshold: float = THRESHOLD
    """Similarity from which on a prompt counts as golden: that of the data set's own build."""
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
    unwanted: int = 0
    """Answers of a rated data set that sft leaves out for their rating."""
    longest: int
    """Tokens of the longest sample, left-out ones included."""
    tokens: int
    trained_tokens: int
    """Tokens of the completions, which alone have a loss."""
    validation_samples: int = 0
    trainable_parameters: int = 0
    padded: str = ""
    """Why the rows of a batch are padded instead of packed; empty where they are packed."""


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
    peak_memory_bytes: int = 0


class Validated(_Frozen):
    """The validation split was measured. `metrics` are the objective's own: accuracy of pairs, Kendall tau, …"""

    kind: Literal["validated"] = "validated"
    step: int
    epoch: float
    loss: float
    seconds: float
    best: bool
    """Whether no validation before had a lower loss."""
    metrics: dict[str, float]


class Saved(_Frozen):
    """A checkpoint folder is complete on disk: adapter, optimizer, scheduler, random state. The reader removes it."""

    kind: Literal["saved"] = "saved"
    step: int
    epoch: float
    folder: Path


class Paused(_Frozen):
    """A pause was requested and it has saved a checkpoint at this step; it ends now."""

    kind: Literal["paused"] = "paused"
    step: int


class ProbeResult(_Frozen):
    """Last-position logits of the probe prompt with the adapter, and how far they are from the base model's."""

    prompt: str
    top_ids: tuple[int, ...]
    top_logits: tuple[float, ...]
    base_logits: tuple[float, ...]
    """The base model's logits of the same token ids."""
    max_delta: float


class BeforeAfter(_Frozen):
    """What base model and adapter each answer to a prompt, greedily."""

    prompt: str
    wanted: str
    before: str
    after: str


class Exported(_Frozen):
    """A further form of the adapter on disk, measured on the validation split against the adapter itself."""

    kind: str
    file: Path
    same_token: float | None = None
    """Share of validation positions at which it prefers the same token."""
    validation_loss: float | None = None
    quality_threshold: float | None = None
    fit: bool = True


class ResourceUsage(_Frozen):
    """What one run of the subprocess cost. `joules` are None where the machine has no meter (see resource_usage.py)."""

    seconds: float
    processor_seconds: float
    joules: float | None = None


class Profiled(_Frozen):
    """The routing profile's file, the embedding model that made it, and of how many distinct prompts."""

    file: Path
    embedded_by: str
    prompts: int


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
    stopped_early: bool = False
    best_step: int | None = None
    """Step whose weights these are, where the best validated ones were kept rather than the last."""
    metrics: dict[str, float] = {}
    """The objective's measures on the validation split with the final weights."""
    spoken: tuple[BeforeAfter, ...] = ()
    exports: tuple[Exported, ...] = ()
    effort: ResourceUsage | None = None
    example_prompts: tuple[str, ...] = ()
    """A few prompts of the data set for the router (see router_prompts.py)."""
    routing: Profiled | None = None
    """What the router recognises the adapter's queries by; absent without an embedding model."""


@dataclass(frozen=True)
class Outcome:
    """The first and the last message of a finished subprocess."""

    began: Began
    finished: Finished


class TrainingRefused(_Frozen):
    """The data or the model cannot be trained like this; trying again changes nothing."""

    kind: Literal["refused"] = "refused"
    reason: str


Progress = Annotated[
    Began | Stepped | Validated | Saved | Paused | Finished | TrainingRefused, Field(discriminator="kind")
]

_progress: TypeAdapter[Progress] = TypeAdapter(Progress)


def read_line(line: bytes) -> Progress:
    """One line of the subprocess's standard output; raises `pydantic.ValidationError` for any other line."""
    return _progress.validate_json(line)


def ask_to_pause(work: Path) -> None:
    """Ask the training that works in this folder to save a checkpoint and end after its current step."""
    (work / _PAUSE_FILE).touch()


def pause_wanted(work: Path) -> bool:
    """Whether a pause was requested."""
    return (work / _PAUSE_FILE).exists()
