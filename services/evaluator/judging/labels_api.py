"""HTTP in: what people think of judged answers, and how far judges agree with them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from services.evaluator.access import Reader, Running, Writer, visible_evaluation
from services.evaluator.golden.schemas import DOMAIN
from services.evaluator.judging import label_store
from services.evaluator.judging.agreement import agreement
from services.evaluator.judging.schemas import Agrees, Bounds, NewLabel, Stored

router = APIRouter(tags=["calibration"])


@router.put("/v1/evaluations/{evaluation_id}/samples/{sample_id}/label", summary="Score a judged answer as a person")
async def label(evaluation_id: str, sample_id: str, given: NewLabel, caller: Writer, service: Running) -> Stored:
    async with service.transaction() as tx:
        await visible_evaluation(tx.connection, evaluation_id, caller)
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
    domain: Annotated[str, Query(pattern=DOMAIN)],
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
