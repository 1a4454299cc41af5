"""Every endpoint of the five services that the client speaks, once each: `call(...) -> Call[answer type]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import TypeAdapter

from fleet_cli.client.clients import Call, Query, Upload
from fleet_cli.client.responses import (
    Adapter,
    Agreement,
    AnswerProvenance,
    Anything,
    BuildQueued,
    ChatCompletion,
    Dataset,
    DatasetBuild,
    DroppedRecords,
    Evaluation,
    GoldenChanged,
    GoldenSet,
    Job,
    JobAccepted,
    Metric,
    Provenance,
    Recorded,
    Reply,
    Route,
    RouteAnswer,
    Uploaded,
)
from fleet_events import v1

_ADAPTER = TypeAdapter(Adapter)
_ADAPTERS = TypeAdapter(list[Adapter])
_ANYTHING = TypeAdapter(Anything)
_CHAT = TypeAdapter(ChatCompletion)
_EVALUATION = TypeAdapter(Evaluation)
_EVALUATIONS = TypeAdapter(list[Evaluation])
_GOLDEN = TypeAdapter(GoldenSet)
_GOLDENS = TypeAdapter(list[GoldenSet])
_JOB = TypeAdapter(Job)
_JOBS = TypeAdapter(list[Job])
_LINES = TypeAdapter(list[dict[str, object]])
_OBJECT = TypeAdapter(dict[str, object])


def _part(name: str) -> str:
    """One part of a path: nothing that a user types may leave it."""
    return quote(name, safe="")


# trainer
def record_samples(domain: str, ndjson: bytes) -> Call[Recorded]:
    """Record training samples, lines {"prompt", "completion", "rating"?, "id"?}."""
    return Call("trainer", "POST", "/v1/samples", TypeAdapter(Recorded), {"domain": domain}, ndjson=ndjson)


def upload_data(domain: str, file: Path) -> Call[Uploaded]:
    """Upload a JSONL, CSV or Parquet file for recipes."""
    query: Query = {"domain": domain, "filename": file.name}
    return Call("trainer", "PUT", "/v1/uploads", TypeAdapter(Uploaded), query, file=file)


def uploads() -> Call[list[Uploaded]]:
    """Uploaded files, newest first."""
    return Call("trainer", "GET", "/v1/uploads", TypeAdapter(list[Uploaded]), inside="uploads")


def delete_upload(domain: str, upload_id: str) -> Call[Uploaded]:
    """Delete an uploaded file."""
    return Call("trainer", "DELETE", f"/v1/uploads/{_part(upload_id)}", TypeAdapter(Uploaded), {"domain": domain})


def build_dataset(recipe: Mapping[str, object]) -> Call[BuildQueued]:
    """Build a data set from a recipe (see docs/training-data.md)."""
    return Call("trainer", "POST", "/v1/datasets", TypeAdapter(BuildQueued), body=recipe)


def dataset_build(build_id: str) -> Call[DatasetBuild]:
    """Where a build stands."""
    return Call("trainer", "GET", f"/v1/datasets/builds/{_part(build_id)}", TypeAdapter(DatasetBuild))


def datasets(name: str | None = None) -> Call[list[Dataset]]:
    """Versions of data sets, newest first."""
    return Call("trainer", "GET", "/v1/datasets", TypeAdapter(list[Dataset]), {"name": name}, inside="datasets")


def dataset(dataset_id: str) -> Call[Dataset]:
    """A data set."""
    return Call("trainer", "GET", f"/v1/datasets/{_part(dataset_id)}", TypeAdapter(Dataset))


def dataset_card(dataset_id: str) -> Call[Anything]:
    """What a data set is made of."""
    return Call("trainer", "GET", f"/v1/datasets/{_part(dataset_id)}/card", _ANYTHING)


def dataset_dropped(dataset_id: str, filter: str | None = None) -> Call[DroppedRecords]:
    """Samples of what each filter dropped, and why."""
    path = f"/v1/datasets/{_part(dataset_id)}/dropped"
    return Call("trainer", "GET", path, TypeAdapter(DroppedRecords), {"filter": filter})


def dataset_records(dataset_id: str, split: str | None = None) -> Call[list[dict[str, object]]]:
    """The records of a data set, of one side of its split or of both."""
    path = f"/v1/datasets/{_part(dataset_id)}/records"
    return Call("trainer", "GET", path, _LINES, {"split": split}, lines=True)


def request_training(request: v1.TrainingRequested) -> Call[JobAccepted]:
    """Queue a training job."""
    body = request.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Call("trainer", "POST", "/v1/jobs", TypeAdapter(JobAccepted), body=body)


def jobs(state: str | None = None) -> Call[list[Job]]:
    """Jobs, newest first."""
    return Call("trainer", "GET", "/v1/jobs", _JOBS, {"state": state}, inside="jobs")


def job(job_id: str) -> Call[Job]:
    """One job."""
    return Call("trainer", "GET", f"/v1/jobs/{_part(job_id)}", _JOB)


def job_course(job_id: str, place: str) -> Call[Anything]:
    """The same as it happens, as server-sent events (see `course`), behind the event of this id."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": place}
    return Call("trainer", "GET", f"/v1/jobs/{_part(job_id)}/metrics/stream", _ANYTHING, headers=headers)


def job_file(job_id: str, path: str) -> Call[Anything]:
    """What a finished job leaves: report, report.html, model-card, peft (a tar), exports/KIND."""
    return Call("trainer", "GET", f"/v1/jobs/{_part(job_id)}/{path}", _ANYTHING)


def job_metrics(job_id: str) -> Call[list[Metric]]:
    """What the training logged."""
    return Call("trainer", "GET", f"/v1/jobs/{_part(job_id)}/metrics", TypeAdapter(list[Metric]), inside="metrics")


def change_job(job_id: str, what: Literal["cancel", "pause", "resume", "retry"], reason: str = "") -> Call[Job]:
    """End a job, let it rest, go on with it, or try it again."""
    body = {"reason": reason} if reason else None
    return Call("trainer", "POST", f"/v1/jobs/{_part(job_id)}/{what}", _JOB, body=body)


# registry
def adapters(
    domain: str | None = None, status: str | None = None, base_model: str | None = None, active: bool | None = None
) -> Call[list[Adapter]]:
    """Versions, filtered."""
    query: Query = {
        "domain": domain,
        "status": status,
        "base_model": base_model,
        "active": None if active is None else str(active).lower(),
    }
    return Call("registry", "GET", "/v1/adapters", _ADAPTERS, query, inside="adapters")


def adapter(adapter_id: str) -> Call[Adapter]:
    """One version."""
    return Call("registry", "GET", f"/v1/adapters/{_part(adapter_id)}", _ADAPTER)


def provenance(adapter_id: str) -> Call[Provenance]:
    """The digest chain of a version."""
    return Call("registry", "GET", f"/v1/adapters/{_part(adapter_id)}/provenance", TypeAdapter(Provenance))


def answer_provenance(generation_id: str) -> Call[AnswerProvenance]:
    """The adapters that gave an answer, and their chains."""
    path = f"/v1/answers/{_part(generation_id)}/provenance"
    return Call("registry", "GET", path, TypeAdapter(AnswerProvenance))


def manifest(adapter_id: str) -> Call[Anything]:
    """What a catalogue says of a version, and the forms it can be had in."""
    return Call("registry", "GET", f"/v1/adapters/{_part(adapter_id)}/manifest", _ANYTHING)


def decide(adapter_id: str, verb: str, reason: str, **further: object) -> Call[Adapter]:
    """approve, reject, activate or deactivate a version."""
    body = {"reason": reason, **further}
    return Call("registry", "POST", f"/v1/adapters/{_part(adapter_id)}/{verb}", _ADAPTER, body=body)


def policy(domain: str) -> Call[dict[str, object]]:
    """The approval policy of a domain."""
    return Call("registry", "GET", f"/v1/policies/{_part(domain)}", _OBJECT)


def set_policy(domain: str, body: Mapping[str, object]) -> Call[dict[str, object]]:
    """Replace the approval policy of a domain."""
    return Call("registry", "PUT", f"/v1/policies/{_part(domain)}", _OBJECT, body=dict(body))


def register(files: Sequence[Path], fields: Mapping[str, str]) -> Call[Adapter]:
    """Upload a PEFT folder's files as a new version."""
    return Call("registry", "POST", "/v1/adapters", _ADAPTER, files=_parts(files), form=fields)


def import_files(files: Sequence[Path], fields: Mapping[str, str]) -> Call[Adapter]:
    """Upload an adapter's files, whatever their form, as a new version."""
    return Call("registry", "POST", "/v1/adapters/import", _ADAPTER, files=_parts(files), form=fields)


def import_from(source: str, fields: Mapping[str, str]) -> Call[Adapter]:
    """Have the registry fetch an adapter from its bucket or a model hub."""
    return Call("registry", "POST", "/v1/adapters/import", _ADAPTER, body={**fields, "source": source})


def _parts(files: Sequence[Path]) -> Upload:
    return [("files", (file.name, file.read_bytes(), "application/octet-stream")) for file in files]


# evaluator
def create_golden(dataset_id: str, domain: str, version: str, description: str) -> Call[GoldenSet]:
    """A new, empty golden data set."""
    body = {"dataset_id": dataset_id, "domain": domain, "version": version, "description": description}
    return Call("evaluator", "POST", "/v1/golden", _GOLDEN, body=body)


def goldens(domain: str | None = None) -> Call[list[GoldenSet]]:
    """Golden data sets."""
    return Call("evaluator", "GET", "/v1/golden", _GOLDENS, {"domain": domain}, inside="datasets")


def golden(reference: str) -> Call[GoldenSet]:
    """One golden data set by `id` (its newest version) or `id@version`."""
    dataset_id, _, version = reference.partition("@")
    return Call("evaluator", "GET", f"/v1/golden/{_part(dataset_id)}", _GOLDEN, {"version": version})


def add_golden_samples(dataset_id: str, ndjson: bytes, *, replace: bool = False) -> Call[GoldenChanged]:
    """Add samples to a golden data set, or make them all it has."""
    query: Query = {"replace": "true" if replace else None}
    path = f"/v1/golden/{_part(dataset_id)}/samples"
    return Call("evaluator", "POST", path, TypeAdapter(GoldenChanged), query, ndjson=ndjson)


def export_golden(reference: str) -> Call[list[dict[str, object]]]:
    """Every sample of a golden data set, `id` or `id@version`."""
    dataset_id, _, version = reference.partition("@")
    return Call("evaluator", "GET", f"/v1/golden/{_part(dataset_id)}/export", _LINES, {"version": version}, lines=True)


def evaluations(adapter_id: str | None = None) -> Call[list[Evaluation]]:
    """Evaluations, newest first."""
    return Call("evaluator", "GET", "/v1/evaluations", _EVALUATIONS, {"adapter_id": adapter_id}, inside="evaluations")


def evaluation(evaluation_id: str) -> Call[Evaluation]:
    """One evaluation with its samples."""
    return Call("evaluator", "GET", f"/v1/evaluations/{_part(evaluation_id)}", _EVALUATION)


def request_evaluation(adapter_id: str, golden_dataset_id: str) -> Call[Anything]:
    """Judge a version again."""
    body = {"adapter_id": adapter_id, "golden_dataset_id": golden_dataset_id}
    return Call("evaluator", "POST", "/v1/evaluations", _ANYTHING, body=body)


def label_answer(evaluation_id: str, sample_id: str, score: float, note: str) -> Call[Anything]:
    """Score a judged answer as a person."""
    path = f"/v1/evaluations/{_part(evaluation_id)}/samples/{_part(sample_id)}/label"
    return Call("evaluator", "PUT", path, _ANYTHING, body={"score": score, "note": note})


def judge_agreement(judge: str, domain: str) -> Call[Agreement]:
    """How far a judge agrees with people."""
    query: Query = {"judge": judge, "domain": domain}
    return Call("evaluator", "GET", "/v1/judges/agreement", TypeAdapter(Agreement), query)


# router and inference
def route(query: str, k: int, threshold: float | None, domains: Sequence[str]) -> Call[RouteAnswer]:
    """What the router would do with a query."""
    body: dict[str, object] = {"query": query, "k": k}
    if threshold is not None:
        body["threshold"] = threshold
    if domains:
        body["domains"] = list(domains)
    return Call("router", "POST", "/v1/route", TypeAdapter(RouteAnswer), body=body)


def routes() -> Call[list[Route]]:
    """Adapters that queries are routed to."""
    return Call("router", "GET", "/v1/routes", TypeAdapter(list[Route]), inside="routes")


def correct_route(query: str, domain: str, family: str | None) -> Call[Anything]:
    """Say who of a domain is to answer a query; None: nobody."""
    body: dict[str, object] = {"query": query, "domain": domain, "family": family}
    return Call("router", "POST", "/v1/corrections", _ANYTHING, body=body)


def models() -> Call[list[Reply]]:
    """What `model` may name."""
    return Call("inference", "GET", "/v1/models", TypeAdapter(list[Reply]), inside="data")


def chat(
    model: str,
    prompt: str,
    *,
    system: str = "",
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int | None = None,
    stream: bool = False,
) -> Call[ChatCompletion]:
    """A chat completion."""
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, object] = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": stream,
    }
    if seed is not None:
        body["seed"] = seed
    return Call("inference", "POST", "/v1/chat/completions", _CHAT, body=body)


def feedback(generation_id: str, rating: int, comment: str) -> Call[Anything]:
    """Rate an answer."""
    body = {"generation_id": generation_id, "rating": rating, "comment": comment}
    return Call("inference", "POST", "/v1/feedback", _ANYTHING, body=body)


def health(service: str, what: str = "readyz") -> Call[Anything]:
    """/healthz or /readyz of a service."""
    return Call(service, "GET", f"/{what}", _ANYTHING)
