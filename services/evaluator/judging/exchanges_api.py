"""HTTP in: the exchanges with judges that are kept of an evaluation, and its verdicts replayed from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from fleet_kit.blobs import BlobRef, Blobs
from services.evaluator.access import Reader, Running, visible_evaluation
from services.evaluator.judging import store
from services.evaluator.judging.replay import NotReplayable, content_of
from services.evaluator.replaying import Replay, Replayed, prepare

router = APIRouter(prefix="/v1/evaluations/{evaluation_id}", tags=["evaluations"])
KEEP_ALIVE = 10.0
"""Seconds between two lines of a replay at most; a judge may take longer."""


class ExchangeView(BaseModel):
    """One request to a judge and its raw answer. Contents are there where they were requested."""

    sample_id: str
    request_sha256: str
    answer_sha256: str
    prompt_tokens: int
    answer_tokens: int
    cost: float
    """In the currency of the judge's prices."""
    seconds: float
    asked_at: datetime
    request: str | None = None
    answer: str | None = None
    missing: str = ""
    """Why a content that was requested is not there."""


class Exchanges(BaseModel):
    exchanges: list[ExchangeView]
    total: int


class NewReplay(BaseModel):
    """What to replay: one sample, or all. `again` sends the requests to the judge anew, which costs what they cost."""

    model_config = ConfigDict(extra="forbid")

    sample_id: str = ""
    again: bool = False


@router.get("/exchanges", summary="Requests to the judge and its raw answers, in the order sent")
async def exchanges(
    evaluation_id: str,
    caller: Reader,
    service: Running,
    *,
    sample_id: Annotated[str, Query(max_length=200)] = "",
    content: bool = False,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
) -> Exchanges:
    async with service.db.acquire() as connection:
        await visible_evaluation(connection, evaluation_id, caller)
        kept = await store.exchanges(connection, evaluation_id)
    wanted = [one for one in kept if sample_id in ("", one["sample_id"])]
    page = wanted[offset : offset + limit]
    shown = await asyncio.gather(*(_shown(one, service.blobs, content=content) for one in page))
    return Exchanges(exchanges=shown, total=len(wanted))


async def _shown(one: dict[str, Any], blobs: Blobs, *, content: bool) -> ExchangeView:
    request, answer = BlobRef.model_validate(one["request"]), BlobRef.model_validate(one["answer"])
    digests = {"request_sha256": request.sha256, "answer_sha256": answer.sha256}
    view = ExchangeView.model_validate({**one, **digests, "request": None, "answer": None})
    if not content:
        return view
    try:
        texts = [(await content_of(blobs, blob)).decode(errors="replace") for blob in (request, answer)]
    except NotReplayable as reason:
        return view.model_copy(update={"missing": str(reason)})
    return view.model_copy(update={"request": texts[0], "answer": texts[1]})


@router.post(
    "/replay",
    summary="Make the verdicts once more from the recorded answers, or with `again` by asking the judge anew",
    description="Server-sent events: one with what is replayed, one for each sample, and one with what it took.",
    response_class=StreamingResponse,
)
async def replay(evaluation_id: str, wanted: NewReplay, caller: Reader, service: Running) -> StreamingResponse:
    if wanted.again:
        caller = caller.restricted_to("adapters:write")
        caller.hold("adapters:write")
    async with service.db.acquire() as connection:
        row = await visible_evaluation(connection, evaluation_id, caller)
    prepared = await prepare(service, evaluation_id, wanted.sample_id, again=wanted.again)
    lines = _lines(prepared, str(row["judge"]), service.settings.concurrency)
    return StreamingResponse(lines, media_type="text/event-stream")


async def _lines(prepared: Replay, judge: str, at_once: int) -> AsyncIterator[str]:
    head = {"judge": judge, "replayed_by": prepared.judge.name, "again": prepared.bill is not None}
    yield _event(head | {"samples": prepared.samples, "requests": prepared.requests})
    run = prepared.run(at_once)
    try:
        pending = asyncio.ensure_future(anext(run, None))
        while True:
            await asyncio.wait({pending}, timeout=KEEP_ALIVE)
            if not pending.done():
                yield ": under way\n\n"
                continue
            if (replayed := pending.result()) is None:
                break
            yield _event(_sample(replayed))
            pending = asyncio.ensure_future(anext(run, None))
    finally:
        pending.cancel()
        await asyncio.wait({pending})
        await run.aclose()
    if prepared.bill is not None:
        yield _event({"spent": asdict(prepared.bill.spent)})


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _sample(one: Replayed) -> dict[str, Any]:
    was, now = one.recorded, one.replayed
    return {
        "sample_id": was.sample_id,
        "agrees": one.agrees,
        "missing": one.missing,
        "recorded": {
            "standing": str(was.standing),
            "overall": was.overall,
            "criteria": {str(c): v.score for c, v in was.verdicts.items()},
            "vetoes": list(was.vetoes),
            "pair": one.pairs[0] if one.pairs else None,
        },
        "replayed": {
            "standing": str(now.standing),
            "overall": now.overall,
            "criteria": {str(c): v.score for c, v in now.verdicts.items()},
            "vetoes": list(now.vetoes),
            "why": now.why,
            "pair": one.pairs[1] if one.pairs else None,
        }
        if now
        else None,
    }
