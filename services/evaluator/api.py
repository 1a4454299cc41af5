"""HTTP in: evaluations and their history; golden_api.py has the golden data sets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import uuid4

import asyncpg
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from fleet_events.v1 import EvaluationRequested
from fleet_kit.auth import Caller, require
from fleet_kit.db import Connection
from fleet_kit.errors import Problem, Refused
from fleet_kit.http import dependency
from services.evaluator import store
from services.evaluator.domain import split_reference
from services.evaluator.golden import api as golden_api
from services.evaluator.golden import sets as golden_sets
from services.evaluator.golden.api import Reader
from services.evaluator.handlers import EvaluatorService
from services.evaluator.judging import labels_api
from services.evaluator.judging.labels_api import Agrees, agreement_of
from services.evaluator.open_evaluation import open_requested

router = APIRouter()
router.include_router(golden_api.router)
router.include_router(labels_api.router)
evaluations = APIRouter(prefix="/v1/evaluations", tags=["evaluations"])
Running = Annotated[EvaluatorService, Depends(dependency(EvaluatorService))]
Orderer = Annotated[Caller, Depends(require("adapters:write"))]


class NewEvaluation(BaseModel):
    """Which version to judge, and with which golden data set (`id` or `id@version`; empty: the domain's newest)."""

    model_config = ConfigDict(extra="forbid")

    adapter_id: str = Field(min_length=1, max_length=200)
    golden_dataset_id: str = Field(default="", max_length=140)


class Accepted(BaseModel):
    evaluation_id: str


class EvaluationView(BaseModel):
    """An evaluation. Scores are on 0–100, criteria on 0–10, rates 0 to 1; null until it is scored.

    `decided` of the samples have a score. `submission` is the family's try at this golden data set since a version was
    activated. `compares_for` names the evaluation that this one only serves to compare with.
    """

    evaluation_id: str
    adapter_id: str
    family: str
    domain: str
    state: str
    done: int
    total: int
    score: float | None
    ci_low: float | None
    ci_high: float | None
    confidence: float | None
    pass_rate: float | None
    pass_rate_low: float | None
    pass_rate_high: float | None
    passed: int | None
    decided: int | None
    submission: int | None
    cut_answers: int | None
    undecided: int | None
    unjudged: int | None
    pass_threshold: float
    criteria: dict[str, float]
    by_difficulty: dict[str, float]
    judge: str
    judging: dict[str, Any]
    """Who judged (name, version, model, digest of the prompt, parameters) and what it took: requests, tokens, cost,
    seconds of all requests."""
    artifact_sha256: str
    golden_dataset_id: str
    golden_version: str | None
    golden_sha256: str | None
    regression: bool
    comparison: dict[str, Any] | None
    report: dict[str, Any] | None
    reason: str
    requested_by: str
    compares_for: str
    created_at: datetime
    finished_at: datetime | None


class SampleView(BaseModel):
    """One judged sample."""

    sample_id: str
    prompt: str
    expected_output: str
    difficulty: str
    answer: str
    finish_reason: str
    overall: float | None
    passed: bool
    standing: str
    """decided, undecided (an estimate), or unjudged (no score)."""
    why: str
    vetoes: list[str]
    """Must-rules that it breaks."""
    verdicts: dict[str, dict[str, Any]]
    evidence: dict[str, Any]
    generation_id: str


class EvaluationDetail(EvaluationView):
    results: list[SampleView]
    agreement: Agrees
    """How far this judge agrees with people in this domain."""


class History(BaseModel):
    evaluations: list[EvaluationView]


@evaluations.post("", status_code=202, summary="Judge a version again")
async def order(wanted: NewEvaluation, caller: Orderer, service: Running) -> Accepted:
    evaluation_id = uuid4().hex
    async with service.transaction() as tx:
        known = await store.candidate(tx.connection, wanted.adapter_id)
        if known is None or not caller.reaches(known["domain"]):
            detail = f"no version {wanted.adapter_id!r} was registered"
            raise Problem(404, "Adapter not found", detail, field="adapter_id")
        domain = str(known["domain"])
        if wanted.golden_dataset_id:
            await _check_golden(tx.connection, wanted.golden_dataset_id, domain)
        event = EvaluationRequested(
            evaluation_id=evaluation_id,
            adapter_id=wanted.adapter_id,
            domain=domain,
            golden_dataset_id=wanted.golden_dataset_id,
            requested_by=caller.subject,
        )
        try:
            await open_requested(
                tx.connection,
                evaluation_id=evaluation_id,
                adapter_id=wanted.adapter_id,
                domain=domain,
                golden=wanted.golden_dataset_id,
                requested_by=caller.subject,
                settings=service.settings,
            )
        except Refused as error:
            raise Problem(409, "Evaluation refused", str(error)) from error
        await tx.emit(event, wanted.adapter_id)
    return Accepted(evaluation_id=evaluation_id)


@evaluations.get("", summary="Evaluations, newest first: of one adapter (its history), or of all within reach")
async def history(
    caller: Reader,
    service: Running,
    adapter_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> History:
    reached = caller.domain_filter
    async with service.db.acquire() as connection:
        rows = await store.history(connection, adapter_id=adapter_id, domains=reached, limit=limit)
    return History(evaluations=[EvaluationView(**_view(row)) for row in rows])


@evaluations.get("/{evaluation_id}", summary="One evaluation with every judged sample")
async def detail(evaluation_id: str, caller: Reader, service: Running) -> EvaluationDetail:
    async with service.db.acquire() as connection:
        row = await store.evaluation_row(connection, evaluation_id)
        if row is None or not caller.reaches(row["domain"]):
            raise Problem(404, "Evaluation not found", f"no evaluation {evaluation_id!r}", field="evaluation_id")
        results = await store.result_rows(connection, evaluation_id)
        agreement = await agreement_of(connection, row["judge"], row["domain"])
    threshold = row["pass_threshold"]
    shown = [SampleView.model_validate({**dict(r), "passed": store.result_of(r).passes(threshold)}) for r in results]
    return EvaluationDetail(**_view(row), results=shown, agreement=agreement)


_AS_STORED = (
    *("evaluation_id", "adapter_id", "family", "domain", "state", "done", "total", "pass_threshold", "judge"),
    *("artifact_sha256", "golden_sha256", "comparison", "report", "reason", "requested_by", "compares_for"),
    *("created_at", "finished_at"),
)


def _view(row: asyncpg.Record) -> dict[str, Any]:
    summary = row["summary"] or {}
    score, rate = summary.get("score") or {}, summary.get("pass_rate") or {}
    return {
        **{name: row[name] for name in _AS_STORED},
        "score": score.get("value"),
        "ci_low": score.get("low"),
        "ci_high": score.get("high"),
        "confidence": summary.get("confidence"),
        "pass_rate": rate.get("value"),
        "pass_rate_low": rate.get("low"),
        "pass_rate_high": rate.get("high"),
        **{
            name: summary.get(name)
            for name in ("passed", "decided", "undecided", "unjudged", "submission", "cut_answers")
        },
        "judging": summary.get("judging", {}),
        "criteria": summary.get("criteria", {}),
        "by_difficulty": summary.get("by_difficulty", {}),
        "golden_dataset_id": row["dataset_id"] or row["wanted_dataset"],
        "golden_version": row["version"],
        "regression": bool(row["comparison"] and row["comparison"]["regression"]),
    }


async def _check_golden(connection: Connection, reference: str, domain: str) -> None:
    named = split_reference(reference)
    try:
        found = await golden_sets.get(connection, *named)
        if found.domain != domain:
            raise golden_sets.unknown(*named)
    except golden_sets.Unknown as error:
        raise Problem(404, "Golden data set not found", str(error), field="golden_dataset_id") from error


router.include_router(evaluations)
