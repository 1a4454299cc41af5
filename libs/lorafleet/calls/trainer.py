"""The trainer's endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from fleet_events import v1
from lorafleet.calls.paths import path_segment
from lorafleet.clients import Call, Query
from lorafleet.responses import (
    AnswerFeedback,
    Anything,
    BuildQueued,
    Dataset,
    DatasetBuild,
    DroppedRecords,
    Erasure,
    GarbageOfTrainer,
    Job,
    JobAccepted,
    Metric,
    Recorded,
    RecordedAnswer,
    RetrainingFirings,
    RetrainingRules,
    Uploaded,
)

_ANYTHING = TypeAdapter(Anything)
_JOB = TypeAdapter(Job)
_JOBS = TypeAdapter(list[Job])
_RULES = TypeAdapter(RetrainingRules)
_LINES = TypeAdapter(list[dict[str, object]])


def record_samples(domain: str, ndjson: bytes) -> Call[Recorded]:
    """Record training samples, lines {"prompt", "completion", "rating"?, "id"?}."""
    return Call("trainer", "POST", "/v1/samples", TypeAdapter(Recorded), {"domain": domain}, ndjson=ndjson)


def recorded_answers(domain: str | None, limit: int) -> Call[list[RecordedAnswer]]:
    """Recorded answers, newest first."""
    query: Query = {"domain": domain, "limit": limit}
    return Call("trainer", "GET", "/v1/answers", TypeAdapter(list[RecordedAnswer]), query, inside="answers")


def answer_feedback(domain: str | None, state: str | None, limit: int) -> Call[list[AnswerFeedback]]:
    """Feedback on answers and what became of it, newest first."""
    query: Query = {"domain": domain, "state": state, "limit": limit}
    return Call("trainer", "GET", "/v1/feedback", TypeAdapter(list[AnswerFeedback]), query, inside="feedback")


def upload_data(domain: str, file: Path) -> Call[Uploaded]:
    """Upload a JSONL, CSV or Parquet file for recipes."""
    query: Query = {"domain": domain, "filename": file.name}
    return Call("trainer", "PUT", "/v1/uploads", TypeAdapter(Uploaded), query, file=file)


def uploads() -> Call[list[Uploaded]]:
    """Uploaded files, newest first."""
    return Call("trainer", "GET", "/v1/uploads", TypeAdapter(list[Uploaded]), inside="uploads")


def delete_upload(domain: str, upload_id: str) -> Call[Uploaded]:
    """Delete an uploaded file."""
    return Call(
        "trainer", "DELETE", f"/v1/uploads/{path_segment(upload_id)}", TypeAdapter(Uploaded), {"domain": domain}
    )


def build_dataset(recipe: Mapping[str, object]) -> Call[BuildQueued]:
    """Build a data set from a recipe (see docs/training-data.md)."""
    return Call("trainer", "POST", "/v1/datasets", TypeAdapter(BuildQueued), body=recipe)


def dataset_build(build_id: str) -> Call[DatasetBuild]:
    """The state of a build."""
    return Call("trainer", "GET", f"/v1/datasets/builds/{path_segment(build_id)}", TypeAdapter(DatasetBuild))


def datasets(name: str | None = None) -> Call[list[Dataset]]:
    """Versions of data sets, newest first."""
    return Call("trainer", "GET", "/v1/datasets", TypeAdapter(list[Dataset]), {"name": name}, inside="datasets")


def dataset(dataset_id: str) -> Call[Dataset]:
    """A data set."""
    return Call("trainer", "GET", f"/v1/datasets/{path_segment(dataset_id)}", TypeAdapter(Dataset))


def dataset_card(dataset_id: str) -> Call[Anything]:
    """What a data set is made of."""
    return Call("trainer", "GET", f"/v1/datasets/{path_segment(dataset_id)}/card", _ANYTHING)


def dataset_dropped(dataset_id: str, filter: str | None = None) -> Call[DroppedRecords]:
    """Samples of what each filter dropped, and why."""
    path = f"/v1/datasets/{path_segment(dataset_id)}/dropped"
    return Call("trainer", "GET", path, TypeAdapter(DroppedRecords), {"filter": filter})


def dataset_records(
    dataset_id: str, split: str | None = None, offset: int | None = None, limit: int | None = None
) -> Call[list[dict[str, object]]]:
    """The records of a data set, of one split or of both; all, or `limit` of them from `offset` on."""
    path = f"/v1/datasets/{path_segment(dataset_id)}/records"
    query = {"split": split, "offset": offset, "limit": limit}
    return Call("trainer", "GET", path, _LINES, query, lines=True)


def request_training(request: v1.TrainingRequested) -> Call[JobAccepted]:
    """Queue a training job."""
    body = request.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Call("trainer", "POST", "/v1/jobs", TypeAdapter(JobAccepted), body=body)


def jobs(state: str | None = None) -> Call[list[Job]]:
    """Jobs, newest first."""
    return Call("trainer", "GET", "/v1/jobs", _JOBS, {"state": state}, inside="jobs")


def job(job_id: str) -> Call[Job]:
    """One job."""
    return Call("trainer", "GET", f"/v1/jobs/{path_segment(job_id)}", _JOB)


def job_stream(job_id: str, last_event_id: str) -> Call[Anything]:
    """The same as server-sent events (see `follow.job_progress`), after the event of this id."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id}
    return Call("trainer", "GET", f"/v1/jobs/{path_segment(job_id)}/metrics/stream", _ANYTHING, headers=headers)


def job_file(job_id: str, path: str) -> Call[Anything]:
    """What a finished job leaves: report, report.html, model-card, peft (a tar), exports/KIND."""
    return Call("trainer", "GET", f"/v1/jobs/{path_segment(job_id)}/{path}", _ANYTHING)


def job_metrics(job_id: str) -> Call[list[Metric]]:
    """The logged steps of a training."""
    return Call(
        "trainer", "GET", f"/v1/jobs/{path_segment(job_id)}/metrics", TypeAdapter(list[Metric]), inside="metrics"
    )


def change_job(job_id: str, what: Literal["cancel", "pause", "resume", "retry"], reason: str = "") -> Call[Job]:
    """Cancel, pause, resume or retry a job."""
    body = {"reason": reason} if reason else None
    return Call("trainer", "POST", f"/v1/jobs/{path_segment(job_id)}/{what}", _JOB, body=body)


def collect_datasets(*, apply: bool, at_most: int = 0) -> Call[GarbageOfTrainer]:
    """What retention rules let go and nothing refers to, of the trainer; deleted where applied."""
    body = {"apply": apply, "at_most": at_most}
    return Call("trainer", "POST", "/v1/gc", TypeAdapter(GarbageOfTrainer), body=body)


def forget_subject(subject: str, domain: str, reason: str, adapters: str) -> Call[Erasure]:
    """Have every record about a person erased."""
    awaits = ["evaluator", "inference"]
    body = {"subject": subject, "domain": domain, "reason": reason, "adapters": adapters, "awaits": awaits}
    return Call("trainer", "POST", "/v1/erasures", TypeAdapter(Erasure), body=body)


def erasures() -> Call[list[Erasure]]:
    """Requests to forget people, newest first."""
    return Call("trainer", "GET", "/v1/erasures", TypeAdapter(list[Erasure]), inside="erasures")


def erasure(erasure_id: str) -> Call[Erasure]:
    """How far a request is, and its proof."""
    return Call("trainer", "GET", f"/v1/erasures/{path_segment(erasure_id)}", TypeAdapter(Erasure))


def retraining_rules() -> Call[list[RetrainingRules]]:
    """Retraining rules of all domains in reach."""
    return Call("trainer", "GET", "/v1/retraining", TypeAdapter(list[RetrainingRules]), inside="rules")


def retraining(domain: str) -> Call[RetrainingRules]:
    """A domain's retraining rules."""
    return Call("trainer", "GET", f"/v1/retraining/{path_segment(domain)}", _RULES)


def set_retraining(domain: str, rules: Mapping[str, object]) -> Call[RetrainingRules]:
    """Replace a domain's retraining rules."""
    return Call("trainer", "PUT", f"/v1/retraining/{path_segment(domain)}", _RULES, body=dict(rules))


def retraining_firings(domain: str) -> Call[RetrainingFirings]:
    """Jobs that a domain's rules requested, and causes that were held back."""
    path = f"/v1/retraining/{path_segment(domain)}/firings"
    return Call("trainer", "GET", path, TypeAdapter(RetrainingFirings))
