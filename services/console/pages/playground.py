"""One prompt to several models side by side, and what people think of the answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_kit.errors import Problem
from fleet_kit.http_limits import body_rule
from lorafleet import calls
from lorafleet.errors import FleetError
from services.console.rendering import page
from services.console.session import form_token_is_good
from services.console.viewer import ThisViewer, Viewer, problem_of

Sent = TypeVar("Sent", bound=BaseModel)
router = APIRouter(include_in_schema=False)
MOST_MODELS = 6


class Prompted(BaseModel):
    """A prompt for one model."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=200)
    prompt: str = Field(min_length=1, max_length=100_000)
    system: str = Field(default="", max_length=100_000)
    max_tokens: int = Field(default=256, ge=1, le=8192)
    temperature: float = Field(default=0.0, ge=0, le=2)


class Rated(BaseModel):
    """What a person thinks of an answer: a rating, or the answer that it is better than."""

    model_config = ConfigDict(extra="forbid")

    generation_id: str = Field(min_length=1, max_length=200)
    rating: int | None = Field(default=None, ge=1, le=5)
    preferred_over: str | None = Field(default=None, max_length=200)


@router.get("/console/playground")
async def show(
    request: Request, viewer: ThisViewer, model: Annotated[list[str] | None, Query(max_length=MOST_MODELS)] = None
) -> Response:
    """The form, with the models that the viewer may use."""
    models = await viewer.call(calls.models())
    names = sorted(str(getattr(one, "id", "")) for one in models)
    return page(request, "playground.html", viewer, names=names, chosen=model or [], most=MOST_MODELS)


@router.post("/console/playground/answer", openapi_extra=body_rule(1 << 20))
async def answer(request: Request, viewer: ThisViewer) -> Response:
    """One model's answer as server-sent events: inference's own chunks, and what went wrong."""
    prompted = await _read(request, viewer, Prompted)
    call = calls.chat(
        prompted.model,
        prompted.prompt,
        system=prompted.system,
        max_tokens=prompted.max_tokens,
        temperature=prompted.temperature,
        stream=True,
        logprobs=True,
    )
    return StreamingResponse(_chunks(viewer.stream(call)), media_type="text/event-stream")


@router.post("/console/playground/feedback", openapi_extra=body_rule(64 * 1024))
async def rate(request: Request, viewer: ThisViewer) -> dict[str, str]:
    """Record a rating or a preference as feedback."""
    rated = await _read(request, viewer, Rated)
    await viewer.call(calls.feedback(rated.generation_id, rated.rating, preferred_over=rated.preferred_over))
    return {"recorded": rated.generation_id}


async def _chunks(chunks: AsyncIterator[dict[str, object]]) -> AsyncIterator[str]:
    try:
        async for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\n\n"
    except FleetError as error:
        yield f"data: {json.dumps({'fault': problem_of(error).detail})}\n\n"
    yield "data: [DONE]\n\n"


async def _read(request: Request, viewer: Viewer, kind: type[Sent]) -> Sent:
    """A script's JSON, which carries the session's mark in a header as forms do in a field."""
    if not form_token_is_good(request.headers.get("x-form-token", ""), viewer.token):
        raise Problem(403, "Form refused", "reload the page and send it again", field="x-form-token")
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(one) for one in first["loc"])
        raise Problem(422, "Invalid request", f"{field}: {first['msg']}", field=field) from None
