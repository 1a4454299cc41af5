"""HTTP in: what people think of judged answers, and how far judges agree with them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from fleet_events.v1 import DomainName
from fleet_kit.auth import Caller, require
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from fleet_kit.http import dependency
from services.evaluator import store
from services.evaluator.handlers import EvaluatorService
from services.evaluator.judging import label_store
from services.evaluator.judging.agreement import agreement

router = APIRouter(tags=["calibration"])
Running = Annotated[EvaluatorService, Depends(dependency(EvaluatorService))]
Reader = Annotated[Caller, Depends(require("adapters:read"))]
Labeller = Annotated[Caller, Depends(require("adapters:write"))]


class NewLabel(BaseModel):
    """A person's score of one answer."""

    model_config = ConfigDict(extra="forbid")

    score: float = Field(ge=0, le=100, allow_inf_nan=False)
    """On the judge's scale."""
    note: str = Field(default="", max_length=4000)


class Stored(BaseModel):
    evaluation_id: str
    sample_id: str
    labelled_by: str
    score: float


class Bounds(BaseModel):
    """An estimate with its 95 % interval."""

    model_config = ConfigDict(from_attributes=True)

    value: float
    low: float
    high: float


class Agrees(BaseModel):
    """A judge beside people, over the answers of a domain that both scored; null where these are too few to tell."""

    judge: str
    domain: str
    answers: int
    alpha: Bounds | None
    """Krippendorff's alpha: 1 is the same scores, 0 what chance gives."""
    pairwise: Bounds | None
    """Share of the pairs that people order (10 points apart) in the same order."""
    bias: float | None
    """Mean of judge minus people, in points."""
    length_bias: float | None
    """Correlation of that with the answer's length in words."""


@router.put("/v1/evaluations/{evaluation_id}/samples/{sample_id}/label", summary="Score a judged answer as a person")
async def label(evaluation_id: str, sample_id: str, given: NewLabel, caller: Labeller, service: Running) -> Stored:
    async with service.transaction() as tx:
        found = await store.evaluation(tx.connection, evaluation_id)
        if found is None or not caller.reaches(found.domain):
            raise Problem(404, "Evaluation not found", f"no evaluation {evaluation_id!r}", field="evaluation_id")
        known = await label_store.put_label(
            tx.connection, evaluation_id, sample_id, by=caller.subject, score=given.score, note=given.note
        )
        if not known:
            detail = f"evaluation {evaluation_id!r} has no judged answer to {sample_id!r}"
            raise Problem(404, "Sample not found", detail, field="sample_id")
    return Stored(evaluation_id=evaluation_id, sample_id=sample_id, labelled_by=caller.subject, score=given.score)


@router.get("/v1/judges/agreement", summary="How far a judge (as evaluations name it) agrees with people in a domain")
async def agrees(
    judge: Annotated[str, Query(min_length=1, max_length=200)],
    domain: DomainName,
    caller: Reader,
    service: Running,
) -> Agrees:
    caller.reach(domain)
    async with service.db.acquire() as connection:
        return await agreement_of(connection, judge, domain)


async def agreement_of(connection: Connection, judge: str, domain: str) -> Agrees:
    """The judge beside people in this domain."""
    labelled = await label_store.labelled(connection, judge, domain)
    # Draws over all pairs take a while.
    found = await asyncio.to_thread(agreement, labelled)
    return Agrees(
        judge=judge,
        domain=domain,
        answers=len(labelled),
        alpha=Bounds.model_validate(found.alpha) if found else None,
        pairwise=Bounds.model_validate(found.pairwise) if found and found.pairwise else None,
        bias=found.bias if found else None,
        length_bias=found.length_bias if found else None,
    )
