"""The digest chain of a version: each link as it was verified, from the data set to the answers it gave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from services.registry.adapter_view import OriginView
from services.registry.family import Adapter, Evaluation, Status
from services.registry.store.usage import Replica, Usage
from services.registry.view import BaseModelView, View


class DatasetLink(View):
    dataset_id: str
    sha256: str
    uri: str
    samples: int


class ConfigurationLink(View):
    sha256: str
    job_id: str
    reason: str = ""
    report_sha256: str
    report_uri: str


class CheckpointLink(View):
    sha256: str
    uri: str
    config_sha256: str
    config_uri: str


class ArtifactLink(View):
    sha256: str
    uri: str
    bytes: int


class EvaluationLink(View):
    evaluation_id: str
    artifact_sha256: str
    golden_dataset_id: str
    golden_sha256: str
    judge: str
    score: float
    ci_low: float
    ci_high: float
    at: datetime
    report_sha256: str


class ApprovalLink(View):
    status: str
    artifact_sha256: str
    by: str
    at: datetime
    reason: str
    evaluation_id: str


class LoadedLink(View):
    replica: str
    artifact_sha256: str
    first_at: datetime
    last_at: datetime
    loads: int


class AnswersLink(View):
    count: int
    last_at: datetime | None


class Provenance(View):
    """Data set → configuration → base model → checkpoint → artifact → evaluation → approval → loaded → answers.

    A link that does not exist (yet) is null: an uploaded adapter has no data set and no configuration. `origin` is an
    imported adapter's: the files it was converted from, by digest. `evaluation` is
    the one that decided, else the newest. Every statement about the artifact repeats the digest that it is about.
    """

    adapter_id: str
    origin: OriginView | None
    dataset: DatasetLink | None
    configuration: ConfigurationLink | None
    base_model: BaseModelView
    checkpoint: CheckpointLink
    artifact: ArtifactLink
    evaluation: EvaluationLink | None
    approval: ApprovalLink | None
    loaded: list[LoadedLink]
    answers: AnswersLink

    @classmethod
    def of(cls, adapter: Adapter, evaluations: Sequence[Evaluation], replicas: Sequence[Replica], usage: Usage) -> Self:
        submission, training = adapter.submission, adapter.submission.training
        decided = next((one for one in evaluations if one.evaluation_id == adapter.decided_on), adapter.evaluation)
        return cls(
            adapter_id=adapter.adapter_id,
            origin=OriginView.model_validate(submission.origin) if submission.origin else None,
            dataset=DatasetLink(
                dataset_id=training.dataset.dataset_id,
                sha256=training.dataset.blob.sha256,
                uri=training.dataset.blob.uri,
                samples=training.dataset.samples,
            )
            if training
            else None,
            configuration=ConfigurationLink(
                sha256=training.configuration_sha256,
                job_id=training.job_id,
                reason=training.reason,
                report_sha256=training.report.sha256,
                report_uri=training.report.uri,
            )
            if training
            else None,
            base_model=BaseModelView.model_validate(submission.base_model),
            checkpoint=CheckpointLink(
                sha256=submission.checkpoint.sha256,
                uri=submission.checkpoint.uri,
                config_sha256=submission.checkpoint_config.sha256,
                config_uri=submission.checkpoint_config.uri,
            ),
            artifact=ArtifactLink.model_validate(submission.artifact.blob),
            evaluation=_evaluation(decided) if decided else None,
            approval=_approval(adapter),
            loaded=[
                LoadedLink(
                    replica=one.replica,
                    artifact_sha256=one.artifact_sha256,
                    first_at=one.first_loaded_at,
                    last_at=one.last_loaded_at,
                    loads=one.loads,
                )
                for one in replicas
            ],
            answers=AnswersLink(count=usage.answers, last_at=usage.last_used_at),
        )


def _evaluation(evaluation: Evaluation) -> EvaluationLink:
    return EvaluationLink(
        evaluation_id=evaluation.evaluation_id,
        artifact_sha256=evaluation.artifact_sha256,
        golden_dataset_id=evaluation.golden_dataset_id,
        golden_sha256=evaluation.golden_sha256,
        judge=evaluation.judge,
        score=evaluation.judgement.score,
        ci_low=evaluation.judgement.ci_low,
        ci_high=evaluation.judgement.ci_high,
        at=evaluation.scored_at,
        report_sha256=evaluation.report.sha256 if evaluation.report else "",
    )


def _approval(adapter: Adapter) -> ApprovalLink | None:
    if adapter.status is Status.PENDING_REVIEW or adapter.decided_at is None:
        return None
    return ApprovalLink(
        status=adapter.status.value,
        artifact_sha256=adapter.artifact_sha256,
        by=adapter.decided_by,
        at=adapter.decided_at,
        reason=adapter.decision_reason,
        evaluation_id=adapter.decided_on,
    )
