"""Trainings: the queue, one job's course as it happens, and a form that requests one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Final, Literal

import httpx
import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import ValidationError

from fleet_events import v1
from fleet_kit.errors import Problem
from fleet_kit.faults import describe
from lorafleet import calls
from lorafleet.calls.paths import path_segment
from lorafleet.clients import check
from lorafleet.errors import FleetError
from services.console.rendering import page, part
from services.console.together import together
from services.console.viewer import FORM, Submitted, ThisViewer, problem_of

Move = Literal["cancel", "pause", "resume", "retry"]
log = structlog.get_logger()
router = APIRouter(include_in_schema=False)
MOVES: Final[dict[Move, frozenset[str]]] = {
    "cancel": frozenset({"queued", "running", "paused"}),
    "pause": frozenset({"queued", "running"}),
    "resume": frozenset({"paused"}),
    "retry": frozenset({"failed", "cancelled"}),
}
"""What can be done with a job, and the states in which the page offers it; the trainer decides."""
NUMBERS: Final = ("rank", "alpha", "learning_rate", "batch_size", "max_steps", "epochs", "seed")
"""Fields of the form that become hyperparameters; empty ones take the trainer's defaults."""
TEXTS: Final = ("domain", "method", "dataset_id", "golden_dataset_id")


@router.get("/console/jobs")
async def listed(request: Request, viewer: ThisViewer, state: Annotated[str, Query(max_length=40)] = "") -> Response:
    """Jobs, newest first; the table alone for htmx, which renews it every few seconds."""
    jobs = await viewer.call(calls.jobs(state or None))
    if "hx-request" in request.headers:
        return part(request, "jobs_table.html", viewer, jobs=jobs)
    return page(request, "jobs.html", viewer, jobs=jobs, state=state)


@router.get("/console/train")
async def form(request: Request, viewer: ThisViewer) -> Response:
    """The form of a new training."""
    return page(request, "train.html", viewer, methods=list(v1.Method), sent={}, fault=None)


@router.post("/console/train", openapi_extra=FORM)
async def train(request: Request, viewer: ThisViewer, sent: Submitted) -> Response:
    """Request a training, as the trainer's API does; what it refuses is shown beside its field."""
    try:
        accepted = await viewer.call(calls.request_training(_requested(sent)))
    except Problem as error:
        if error.status not in (409, 422):
            raise
        return page(request, "train.html", viewer, status=error.status, methods=list(v1.Method), sent=sent, fault=error)
    return RedirectResponse(f"/console/jobs/{path_segment(accepted.job_id)}", 303)


@router.get("/console/jobs/{job_id}")
async def show(request: Request, job_id: str, viewer: ThisViewer) -> Response:
    """One job: its state, its course, its data."""
    job, metrics = await together(viewer.call(calls.job(job_id)), viewer.call(calls.job_metrics(job_id)))
    dataset = str(getattr(job, "dataset", "") or "")
    card = await viewer.maybe(calls.dataset_card(dataset) if dataset else None)
    return page(
        request,
        "job.html",
        viewer,
        job=job,
        metrics=metrics,
        card=card,
        moves=[move for move, states in MOVES.items() if getattr(job, "state", "") in states],
    )


@router.post("/console/jobs/{job_id}/{move}", openapi_extra=FORM)
async def change(job_id: str, move: Move, viewer: ThisViewer, sent: Submitted) -> Response:
    """Cancel, pause, resume or retry a job."""
    await viewer.call(calls.change_job(job_id, move, sent.get("reason", "")))
    return RedirectResponse(f"/console/jobs/{path_segment(job_id)}", 303)


@router.get("/console/jobs/{job_id}/course")
async def course(
    job_id: str, viewer: ThisViewer, last_event_id: Annotated[str, Header(max_length=40)] = ""
) -> Response:
    """The trainer's own stream of a job's steps, with the viewer's token."""
    call = calls.job_stream(job_id, last_event_id)
    request = call.request(viewer.service.settings.service_url(call.service), viewer.token)
    try:
        upstream = await viewer.service.http.send(request, stream=True)
        if not upstream.is_success:
            await upstream.aread()
            await upstream.aclose()
            check(call.service, upstream)
    except httpx.HTTPError as error:
        raise Problem(503, "Unavailable", f"{call.service}: {describe(error)}", retry_after=2) from error
    except FleetError as error:
        raise problem_of(error) from error

    async def passed_on() -> AsyncIterator[bytes]:
        try:
            async for piece in upstream.aiter_bytes():
                yield piece
        except httpx.HTTPError as error:
            # The browser connects again, with the number of the last step that it has.
            log.info("course.cut", job_id=job_id, error=describe(error))
        finally:
            await upstream.aclose()

    return StreamingResponse(passed_on(), media_type="text/event-stream")


def _requested(sent: Mapping[str, str]) -> v1.TrainingRequested:
    """The event of a filled form. Raises a 422 `Problem` that names the field."""
    numbers = {name: sent[name] for name in NUMBERS if sent.get(name)}
    fields: dict[str, object] = {name: sent[name] for name in TEXTS if sent.get(name)}
    if numbers:
        fields["hyperparameters"] = {name: _number(name, text) for name, text in numbers.items()}
    try:
        return v1.TrainingRequested.from_json(json.dumps(fields).encode())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(one) for one in first["loc"])
        raise Problem(422, "Invalid request", f"{field}: {first['msg']}", field=field) from None


def _number(name: str, text: str) -> float | int:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise Problem(422, "Invalid request", f"{name}: {text!r} is no number", field=name) from None
