"""HTTP in: evaluations and their history; golden/ and judging/ have their own endpoints."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import uuid4

import asyncpg
from fastapi import APIRouter, Query

from fleet_events.v1 import EvaluationRequested
from fleet_kit.db import Connection
from fleet_kit.errors import Problem, Refused
from services.evaluator import garbage_api, store
from services.evaluator.access import Reader, Running, Writer, visible_evaluation
from services.evaluator.domain import split_reference
from services.evaluator.golden import api as golden_api
from services.evaluator.golden import erasure_api
from services.evaluator.golden import sets as golden_sets
from services.evaluator.judging import exchanges_api, labels_api, pair_store
from services.evaluator.judging.calibration import UNCALIBRATED
from services.evaluator.judging.labels_api import agreement_of
from services.evaluator.judging.people import scored_by_both
from services.evaluator.open_evaluation import open_requested
from services.evaluator.schemas import Accepted, EvaluationDetail, EvaluationView, History, NewEvaluation, SampleView

router = APIRouter()
router.include_router(golden_api.router)
router.include_router(erasure_api.router)
router.include_router(labels_api.router)
router.include_router(exchanges_api.router)
router.include_router(garbage_api.router)
evaluations = APIRouter(prefix="/v1/evaluations", tags=["evaluations"])


@evaluations.post("", status_code=202, summary="Judge a version again")
async def order(wanted: NewEvaluation, caller: Writer, service: Running) -> Accepted:
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
        row = await visible_evaluation(connection, evaluation_id, caller)
        results = await store.result_rows(connection, evaluation_id)
        labelled = await scored_by_both(connection, {row["judge"]: UNCALIBRATED}, row["domain"])
        compared = await pair_store.labelled_pairs(connection, row["judge"], row["domain"])
        rival = (row["preference"] or {}).get("evaluation_id", "")
        pairs = {one.sample_id: one.shown() for one in await pair_store.pairs(connection, evaluation_id, rival)}
    agreement = await agreement_of(labelled, compared, row["judge"], row["domain"])
    threshold = row["pass_threshold"]
    shown = [
        SampleView.model_validate(
            {**dict(r), "passed": store.result_of(r).passes(threshold), "pair": pairs.get(r["sample_id"])}
        )
        for r in results
    ]
    return EvaluationDetail(**_view(row), results=shown, agreement=agreement)


_AS_STORED = (
    *("evaluation_id", "adapter_id", "family", "domain", "state", "done", "total", "pass_threshold", "judge"),
    *("max_tokens", "artifact_sha256", "golden_sha256", "comparison", "preference", "report", "reason", "requested_by"),
    *("compares_for", "created_at", "finished_at"),
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
        "metrics": summary.get("metrics", {}),
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
