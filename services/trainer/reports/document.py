"""The training report as a document: what is stored as JSON, served, and shown as a page and a model card."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, JsonValue

from fleet_events import v1
from services.trainer.training.protocol import BeforeAfter, ProbeResult


class Part(BaseModel):
    """A part of the report."""

    model_config = ConfigDict(frozen=True)


class DatasetPart(Part):
    """What was trained on. `card` is the data set's own data card, where it has one; counts are of this training."""

    dataset_id: str
    blob: v1.Blob
    kind: str
    samples: int
    validation_samples: int
    query: str
    min_rating: float | None
    trained_samples: int
    left_out_too_long: int
    longest_sample_tokens: int
    tokens: int
    completion_tokens: int
    card: dict[str, JsonValue] | None = None


class Results(Part):
    """Final numbers. Losses are nats a token, `train_loss` the mean of all steps; `best_step` is the step whose weights
    these are where the best validated ones were kept, and None where they are the last step's."""

    steps: int
    final_loss: float
    train_loss: float
    validation_loss: float | None
    best_validation_loss: float | None
    best_step: int | None
    stopped_early: bool
    seconds: float
    tokens: int
    tokens_per_second: float
    peak_memory_bytes: int
    trainable_parameters: int
    padded: str = ""
    """Why the rows of a batch were padded instead of packed; empty where they were packed."""
    metrics: dict[str, float]


class Times(Part):
    """When, and how long. `training_seconds` counts every step once, whichever attempt did it."""

    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime
    waited_seconds: float
    training_seconds: float
    attempts: int


class Energy(Part):
    """Energy of the processors. `method` is `rapl` (the machine's own counters) or `estimate` (busy seconds times an
    assumed power); `note` lists what is in it and what is not."""

    watt_hours: float
    processor_seconds: float
    method: str
    note: str


class ExportPart(Part):
    """A further form of the adapter and how it did on the validation split; `fit` is False where it lost too much."""

    kind: str
    blob: v1.Blob
    same_token: float | None
    validation_loss: float | None
    quality_threshold: float | None
    fit: bool


class StepPart(Part):
    """One optimizer step of the curve."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    peak_memory_bytes: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class ValidationPart(Part):
    """One measure of the validation split."""

    step: int
    epoch: float
    loss: float
    seconds: float
    best: bool
    metrics: dict[str, float]


class TrainingReport(Part):
    """Everything a finished training leaves to read."""

    job_id: str
    domain: str
    description: str
    objective: str
    method: str
    continued_from: str
    requested_by: str
    base_model: v1.BaseModel | None
    dataset: DatasetPart
    configuration: dict[str, JsonValue]
    configuration_sha256: str
    results: Results
    time: Times
    energy: Energy | None
    samples: tuple[BeforeAfter, ...]
    exports: tuple[ExportPart, ...]
    probe: ProbeResult
    files: dict[str, v1.Blob]
    artifact_digest: str
    environment: dict[str, str]
    curve: tuple[StepPart, ...]
    validations: tuple[ValidationPart, ...]
