"""HTTP in: what people think of judged answers, and how far judges agree with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from fleet_events.v1 import DomainName
from fleet_kit.errors import Problem
from services.evaluator.access import Reader, Running, Writer, visible_evaluation
from services.evaluator.judging import calibration_store, label_store, pair_store
from services.evaluator.judging.agreement import Labelled, agreement
from services.evaluator.judging.calibration import LEAST, UNCALIBRATED, fit
from services.evaluator.judging.pair_agreement import LabelledPair, accuracy, pair_agreement
from services.evaluator.judging.people import scored_by_both
from services.evaluator.judging.schemas import Agrees, Bounds, Calibrated, NewCalibration, NewLabel, PairsAgree, Stored

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
    domain: DomainName,
    caller: Reader,
    service: Running,
) -> Agrees:
    caller.reach(domain)
    async with service.db.acquire() as connection:
        labelled = await scored_by_both(connection, {judge: UNCALIBRATED}, domain)
        pairs = await pair_store.labelled_pairs(connection, judge, domain)
    return await agreement_of(labelled, pairs, judge, domain)


@router.post("/v1/judges/calibration", status_code=201, summary="Fit a judge's scores in a domain to people's")
async def calibrate(wanted: NewCalibration, caller: Writer, service: Running) -> Calibrated:
    caller.reach(wanted.domain)
    async with service.transaction() as tx:
        labelled = [one.labelled for one in await label_store.labelled(tx.connection, wanted.judge, wanted.domain)]
        fitted = fit(labelled)
        if fitted is None:
            detail = f"{len(labelled)} labelled answers of {wanted.judge!r} in {wanted.domain!r}; it takes {LEAST}"
            raise Problem(409, "Too few labels", detail, field="judge")
        pairs = accuracy(await pair_store.labelled_pairs(tx.connection, wanted.judge, wanted.domain))
        await calibration_store.add_calibration(
            tx.connection, wanted.judge, wanted.domain, fitted, pairs, by=caller.subject
        )
    return Calibrated(
        judge=wanted.judge, domain=wanted.domain, **asdict(fitted), pairs=pairs.pairs, pairs_agreed=pairs.agreed
    )


async def agreement_of(labelled: Sequence[Labelled], pairs: Sequence[LabelledPair], judge: str, domain: str) -> Agrees:
    """The judge beside people in this domain, from the answers and pairs that both have scored."""
    # Draws over all pairs take a while.
    found = await asyncio.to_thread(agreement, labelled)
    preferred = pair_agreement(pairs)
    return Agrees(
        judge=judge,
        domain=domain,
        answers=len(labelled),
        alpha=Bounds.model_validate(found.alpha) if found else None,
        pairwise=Bounds.model_validate(found.pairwise) if found and found.pairwise else None,
        bias=found.bias if found else None,
        length_bias=found.length_bias if found else None,
        preferences=PairsAgree.model_validate(preferred, from_attributes=True) if preferred else None,
    )
