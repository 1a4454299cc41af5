"""What the trainer answers: jobs, data sets, uploads and recorded samples."""

from __future__ import annotations

import re

from pydantic import Field

from lorafleet.responses.reply import Reply


class JobAccepted(Reply):
    """A training job that was queued, and what may not come out as its requester expects."""

    job_id: str
    warnings: list[str] = Field(default_factory=list)


class Attempt(Reply):
    """One worker's time with a job."""

    number: int
    worker: str = ""
    started_at: str = ""
    ended_at: str | None = None
    outcome: str | None = None
    reason: str = ""


class Job(Reply):
    """A training job."""

    job_id: str
    state: str
    domain: str = ""
    method: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    attempts: int = 0
    priority: int = 0
    error: str | None = None
    history: list[Attempt] = Field(default_factory=list)


class Metric(Reply):
    """One logged step of a training."""

    step: int
    loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None


class Dataset(Reply):
    """A version of a training data set."""

    dataset_id: str
    domain: str = ""
    name: str = ""
    version: int = 0
    kind: str = ""
    query: str = ""
    samples: int = 0
    validation_samples: int = 0


class Uploaded(Reply):
    """A file that recipes may name."""

    upload_id: str
    domain: str = ""
    filename: str = ""
    bytes: int = 0
    created_at: str = ""


class BuildQueued(Reply):
    """A recipe that waits to be built."""

    build_id: str


class BuildFault(Reply):
    """One thing that is wrong with a recipe, or with the data it names."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        # A fault of a source's rows names its file and row; the source's number in the recipe adds nothing to that.
        where = "" if re.fullmatch(r"sources\.\d+", self.field) else f"{self.field}: "
        return f"{where}{self.value}, expected {self.expected}"


class DatasetBuild(Reply):
    """Where a build stands."""

    build_id: str
    state: str
    domain: str = ""
    name: str = ""
    dataset_id: str | None = None
    version: int | None = None
    faults: list[BuildFault] = Field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed")


class DroppedRecord(Reply):
    """A record that a filter dropped."""

    reason: str
    prompt: str = ""
    completion: str = ""


class FilterCount(Reply):
    """What a filter did."""

    dropped: int = 0
    changed: int = 0
    uncertain: int = 0
    reasons: dict[str, int] = Field(default_factory=dict)
    samples: list[DroppedRecord] = Field(default_factory=list)


class DroppedRecords(Reply):
    """What each filter dropped, of the sources' records and of generated ones."""

    filters: dict[str, FilterCount] = Field(default_factory=dict)
    generated: dict[str, FilterCount] = Field(default_factory=dict)


class Recorded(Reply):
    """What became of uploaded samples."""

    received: int = 0
    added: int = 0
    duplicates: int = 0


class ErasedBy(Reply):
    """How far one service is with an erasure."""

    service: str
    state: str = ""
    deleted: int = 0


class ForgottenGolden(Reply):
    """What the evaluator erased of a person."""

    erasure_id: str
    deleted: int = 0


class ForgottenStored(Reply):
    """What inference deleted of a person."""

    erasure_id: str
    deleted: int = 0


class Erasure(Reply):
    """A request to forget a person, and its proof."""

    erasure_id: str
    domain: str = ""
    subject_digest: str = ""
    state: str = ""
    requested_by: str = ""
    requested_at: str = ""
    erased_at: str | None = None
    datasets: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    deleted: dict[str, dict[str, object]] = Field(default_factory=dict)
    late: int = 0
    kept_elsewhere: tuple[str, ...] = ()
    services: list[ErasedBy] = Field(default_factory=list)


class RecordedAnswer(Reply):
    """An answer that a domain's policy let be recorded."""

    generation_id: str
    domain: str
    adapter_id: str
    answer: str
    answered_at: str


class AnswerFeedback(Reply):
    """Feedback on an answer: waiting for it, used, or unusable for a reason."""

    generation_id: str
    domain: str
    rater: str
    rating: int | None
    correction: str
    preferred_over: str
    state: str
    reason: str
    given_at: str

    @property
    def summary(self) -> str:
        """Its content in a few words."""
        parts = [f"rating {self.rating}"] if self.rating is not None else []
        parts += ["correction"] if self.correction else []
        parts += [f"better than {self.preferred_over}"] if self.preferred_over else []
        return ", ".join(parts)


class RetrainingRules(Reply):
    """A domain's retraining rules, who set them and when."""

    domain: str
    rules: dict[str, object] = Field(default_factory=dict)
    set_by: str = ""
    set_at: str | None = None


class RetrainingFiring(Reply):
    """A job that rules requested; `state` is empty until its request was accepted."""

    job_id: str
    triggers: list[str] = Field(default_factory=list)
    reason: str = ""
    active_adapter: str = ""
    planned_steps: int = 0
    planned_tokens: int = 0
    tokens: int = 0
    fired_at: str = ""
    state: str = ""
    error: str = ""


class RetrainingSuppressed(Reply):
    """A cause that led to no job, and why not."""

    trigger: str
    why: str
    reason: str = ""
    detail: str = ""
    times: int = 0
    last_at: str = ""


class RetrainingFirings(Reply):
    """What a domain's rules did and did not do, newest first."""

    firings: list[RetrainingFiring] = Field(default_factory=list)
    suppressed: list[RetrainingSuppressed] = Field(default_factory=list)
