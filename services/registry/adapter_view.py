"""A version as the registry answers it over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import Field

from fleet_events import v1
from services.registry.evaluation_view import EvaluationView
from services.registry.family import Adapter, Training
from services.registry.store.metrics import OwnMetric
from services.registry.store.usage import Feedback, Replica, Usage
from services.registry.view import BaseModelView, BlobView, View


class DatasetView(View):
    """The samples that were trained on."""

    dataset_id: str
    samples: int
    blob: BlobView


class TrainingView(View):
    """How a version was trained here."""

    job_id: str
    dataset: DatasetView
    configuration: str = Field(description="Canonical JSON with every hyperparameter and the base model")
    configuration_sha256: str
    report: BlobView
    report_page: BlobView | None
    model_card: BlobView | None
    metrics: dict[str, float]
    objective: str
    continued_from: str
    adapter_type: str = Field(description="What kind of adapter its data was prepared for")
    reason: str = Field(description="Why it was trained, where a retraining rule asked for it")
    exports: tuple[v1.Export, ...] = Field(description="Further forms, and whether each is fit")
    finished_at: datetime | None


class AdapterView(View):
    """One version, as lists show it."""

    adapter_id: str
    family: str
    domain: str
    method: str
    version: str
    status: str
    active: bool
    base_model: BaseModelView
    artifact_sha256: str = Field(description="Checksum of the Arrow artifact that serves")
    artifact_bytes: int
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    description: str
    metrics: dict[str, float] = Field(
        description="llm_judge_score 0-100, pass_rate in per cent, the evaluation's 0-1, the training's numbers"
    )
    registered_by: str
    registered_at: datetime
    decided_by: str
    decided_at: datetime | None
    decision_reason: str
    held: bool = Field(default=False, description="Its files are kept, also where the retention rules let them go")
    released_at: datetime | None = Field(default=None, description="Since when its files may be deleted")

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        return cls(**_summary(adapter))


class UsageView(View):
    """Answers that the version gave."""

    answers: int
    cancelled: int
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float | None = Field(description="Mean over its answers")
    first_used_at: datetime | None
    last_used_at: datetime | None


class FeedbackView(View):
    """Ratings of the version's answers, 1 (bad) to 5 (good)."""

    count: int
    average: float | None
    ratings: dict[int, int]


class ReplicaView(View):
    """A replica that loaded the version and proved its effect."""

    replica: str
    artifact_sha256: str
    loads: int
    load_ms: float
    modules_bound: int
    max_delta: float
    first_loaded_at: datetime
    last_loaded_at: datetime
    unloaded_at: datetime | None = Field(description="When it gave the version up; null while it holds it")


class OriginalFileView(View):
    """A file of an imported adapter as it came."""

    name: str
    sha256: str
    bytes: int


class OriginView(View):
    """Where an imported version comes from."""

    form: str = Field(description="peft, mlx, gguf or arrow")
    source: str = Field(description="upload, or what was fetched; a hub's repository with its commit")
    files: list[OriginalFileView]


class OwnMetricView(View):
    """A number that a user set."""

    value: float
    ci_low: float | None
    ci_high: float | None
    samples: int | None
    note: str
    set_by: str
    set_at: datetime


class AdapterDetails(AdapterView):
    """Everything known of one version."""

    example_prompts: tuple[str, ...]
    golden_dataset_id: str
    auto_approve_threshold: float | None
    artifact: BlobView
    checkpoint: BlobView
    checkpoint_config: BlobView
    probe: v1.Probe | None
    training: TrainingView | None
    origin: OriginView | None
    evaluation: EvaluationView | None
    usage: UsageView
    feedback: FeedbackView
    replicas: list[ReplicaView]
    own_metrics: dict[str, OwnMetricView] = Field(description="What users measured themselves")
    learned_from_erased: tuple[str, ...] = Field(
        default=(), description="Erasures that deleted records it learned from; see the trainer's /v1/erasures"
    )

    @classmethod
    def with_service(
        cls,
        adapter: Adapter,
        *,
        usage: Usage,
        feedback: Feedback,
        replicas: Sequence[Replica],
        own_metrics: Mapping[str, OwnMetric],
        learned_from_erased: Sequence[str],
    ) -> Self:
        submission = adapter.submission
        return cls(
            **_summary(adapter),
            example_prompts=submission.example_prompts,
            golden_dataset_id=submission.golden_dataset_id,
            auto_approve_threshold=submission.auto_approve_threshold,
            artifact=BlobView.model_validate(submission.artifact.blob),
            checkpoint=BlobView.model_validate(submission.checkpoint),
            checkpoint_config=BlobView.model_validate(submission.checkpoint_config),
            probe=submission.probe,
            training=_training(submission.training),
            origin=OriginView.model_validate(submission.origin) if submission.origin else None,
            evaluation=EvaluationView.of(adapter.evaluation) if adapter.evaluation else None,
            usage=UsageView.model_validate(usage),
            feedback=FeedbackView.model_validate(feedback),
            replicas=[ReplicaView.model_validate(replica) for replica in replicas],
            own_metrics={name: OwnMetricView.model_validate(one) for name, one in own_metrics.items()},
            learned_from_erased=tuple(learned_from_erased),
        )


class AdapterList(View):
    """Versions, newest first; `next` goes into `before` for the next page."""

    adapters: list[AdapterView]
    next: int | None = None


def metrics_of(adapter: Adapter) -> dict[str, float]:
    """The version's numbers in one flat map, under the names of LA-1.3."""
    metrics = dict(adapter.submission.training.metrics) if adapter.submission.training else {}
    if adapter.evaluation is not None:
        metrics["llm_judge_score"] = adapter.evaluation.judgement.score
        metrics["pass_rate"] = adapter.evaluation.pass_rate * 100
        metrics["golden_dataset_accuracy"] = adapter.evaluation.pass_rate
        metrics |= {name: one.value for name, one in adapter.evaluation.metrics.items()}
    return metrics


def _summary(adapter: Adapter) -> dict[str, Any]:
    submission = adapter.submission
    return {
        "adapter_id": adapter.adapter_id,
        "family": submission.family,
        "domain": submission.domain,
        "method": submission.method,
        "version": str(adapter.version),
        "status": adapter.status.value,
        "active": adapter.active,
        "base_model": BaseModelView.model_validate(submission.base_model),
        "artifact_sha256": adapter.artifact_sha256,
        "artifact_bytes": submission.artifact.blob.bytes,
        "rank": submission.artifact.rank,
        "alpha": submission.artifact.alpha,
        "target_modules": submission.artifact.target_modules,
        "description": submission.description,
        "metrics": metrics_of(adapter),
        "registered_by": submission.by,
        "registered_at": adapter.registered_at,
        "decided_by": adapter.decided_by,
        "decided_at": adapter.decided_at,
        "decision_reason": adapter.decision_reason,
        "held": adapter.held,
        "released_at": adapter.released_at,
    }


def _training(training: Training | None) -> TrainingView | None:
    return TrainingView.model_validate(training) if training else None
