"""HTTP of `/v1/batches`."""

import time
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from services.inference.batches import lifecycle
from services.inference.batches.admission import admit
from services.inference.batches.records import WINDOW_SECONDS, BatchRecord, Owner, new_id
from services.inference.batches.store import reachable
from services.inference.errors import BadRequest, Conflict, NotFound
from services.inference.http.access import Generates, LimitedCaller, Parts, ThisService
from services.inference.http.batches.forms import BatchRequest, page

router = APIRouter()


@router.post("/v1/batches")
async def create_batch(body: BatchRequest, caller: LimitedCaller, parts: Parts, service: ThisService) -> JSONResponse:
    """Have the requests of a file computed aside, within a day."""
    now = int(time.time())
    with reachable():
        try:
            source = await parts.batches.file(body.input_file_id, caller, now)
        except NotFound as error:
            raise BadRequest(error.message, code=error.code, param="input_file_id") from error
        if source.purpose != "batch":
            message = f"file {source.id!r} is an output; a batch reads a file of purpose batch."
            raise BadRequest(message, code="invalid_value", param="input_file_id")
        batch = BatchRecord(
            id=new_id("batch_"),
            owner=Owner.of(caller),
            input_file_id=source.id,
            source=source.blob,
            endpoint=body.endpoint,
            created_at=now,
            expires_at=now + WINDOW_SECONDS,
            metadata=body.metadata,
            output_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
        )
        await admit(batch, parts.batches, service.settings.batches_per_domain)
    return JSONResponse(batch.shown())


@router.get("/v1/batches")
async def list_batches(
    caller: Generates,
    parts: Parts,
    after: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JSONResponse:
    """The caller's own batches, the newest first."""
    with reachable():
        return JSONResponse(page((await parts.batches.batches(caller))[::-1], after, limit))


@router.get("/v1/batches/{batch_id}")
async def retrieve_batch(batch_id: str, caller: Generates, parts: Parts) -> JSONResponse:
    """One of the caller's own batches."""
    with reachable():
        return JSONResponse((await parts.batches.batch(batch_id, caller)).batch.shown())


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel_batch(batch_id: str, caller: Generates, parts: Parts) -> JSONResponse:
    """Compute no further line of a batch of the caller's own; what is done stays in its files."""
    with reachable():
        kept = await parts.batches.batch(batch_id, caller)
        now = int(time.time())
        try:
            changed = await parts.batches.change(kept, lambda batch: lifecycle.cancelled(batch, now))
        except lifecycle.NotCancellable as error:
            message = f"batch {batch_id!r} is {error}; it cannot be cancelled any more."
            raise Conflict(message, code="batch_not_cancellable", param="batch_id") from error
        parts.batches.added.set()
    return JSONResponse(changed.batch.shown())
