"""HTTP in: what a job logs and leaves behind. Scope `train`; a caller sees only the domains of its token."""

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fleet_events import v1
from fleet_kit.errors import Problem
from fleet_kit.http_openapi import answers_with
from services.trainer.jobs import store
from services.trainer.jobs.access import VisibleJob
from services.trainer.jobs.context import JobContext, Jobs
from services.trainer.jobs.domain import Job
from services.trainer.reports.download import archive, download
from services.trainer.reports.schemas import Course, MetricView, ValidationView
from services.trainer.reports.stream import LastPlace, course
from services.trainer.training.export_kinds import is_gguf

router = APIRouter(prefix="/v1", tags=["reports"])

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
# The page brings its styles with it and needs nothing else.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}


@router.get("/jobs/{job_id}/metrics", summary="Loss, learning rate, gradient norm, speed and memory of every step")
async def get_metrics(job: VisibleJob, trainer: Jobs, after: Annotated[int, Query(ge=0)] = 0) -> Course:
    """Readable while the job runs; `?after=` gives only what came since a step."""
    async with trainer.db.acquire(timeout=5) as connection:
        steps = await store.list_steps(connection, job.job_id, after)
        validations = await store.list_validations(connection, job.job_id, after)
    return Course(
        metrics=[MetricView.of(step) for step in steps], validations=[ValidationView.of(one) for one in validations]
    )


@router.get(
    "/jobs/{job_id}/metrics/stream",
    summary="The same as server-sent events, as it happens",
    response_class=EventSourceResponse,
)
async def stream_metrics(job: VisibleJob, place: LastPlace, trainer: Jobs) -> AsyncIterator[ServerSentEvent]:
    """Events `state`, `step` and `validation`; the last is a final `state`. `Last-Event-ID` continues after it."""
    async for event in course(job.job_id, place, trainer):
        yield event


@router.get(
    "/jobs/{job_id}/report",
    summary="Report of a finished job, as JSON or as a page",
    response_class=Response,
    responses=answers_with("application/json", "text/html"),
)
async def get_report(job: VisibleJob, trainer: Jobs, accept: Annotated[str, Header()] = "") -> Response:
    """A browser, which accepts text/html and no JSON, gets the page; everything else the JSON document."""
    if "text/html" in accept and "application/json" not in accept:
        return await _page(job, trainer)
    content = await trainer.blobs.get(_completed(job).report)
    return Response(content, media_type="application/json", headers={"Vary": "Accept"})


@router.get(
    "/jobs/{job_id}/report.html",
    summary="Report of a finished job as a page for people",
    response_class=Response,
    responses=answers_with("text/html"),
)
async def get_report_page(job: VisibleJob, trainer: Jobs) -> Response:
    return await _page(job, trainer)


@router.get(
    "/jobs/{job_id}/model-card",
    summary="Model card of a finished job, Markdown",
    response_class=Response,
    responses=answers_with("text/markdown"),
)
async def get_model_card(job: VisibleJob, trainer: Jobs) -> Response:
    card = _there(_completed(job).model_card, job, "model card")
    return Response(await trainer.blobs.get(card), media_type="text/markdown; charset=utf-8")


@router.get(
    "/jobs/{job_id}/peft",
    summary="The PEFT folder of a finished job as a tar",
    response_class=Response,
    responses=answers_with("application/x-tar"),
)
async def get_peft(job: VisibleJob, trainer: Jobs) -> StreamingResponse:
    """adapter_model.safetensors, adapter_config.json and README.md, as `PeftModel.from_pretrained` loads them."""
    completed = _completed(job)
    files = {"adapter_config.json": completed.checkpoint_config, "adapter_model.safetensors": completed.checkpoint}
    if completed.model_card is not None:
        files["README.md"] = completed.model_card
    return await archive(files, f"{_file_name(job)}-peft.tar", trainer)


@router.get(
    "/jobs/{job_id}/exports/{kind}",
    summary="A further form of a finished job's adapter, such as gguf, gguf-q4_k_m or int8",
    response_class=Response,
    responses=answers_with("application/octet-stream"),
)
async def get_export(job: VisibleJob, kind: str, trainer: Jobs) -> StreamingResponse:
    """Its measures are in the report; one that is not fit can be had as well, for who wants to look at it."""
    made: dict[str, v1.Export] = {export.kind: export for export in _completed(job).exports}
    if kind not in made:
        there = ", ".join(made) or "none: name them in the request's `exports`"
        raise Problem(404, "No such export", f"job {job.job_id} has no export {kind!r}; there are {there}")
    ending = "gguf" if is_gguf(kind) else "arrow"
    return await download(made[kind].blob, f"{_file_name(job)}-{kind}.{ending}", trainer)


async def _page(job: Job, trainer: JobContext) -> Response:
    page = _there(_completed(job).report_page, job, "report page")
    return Response(await trainer.blobs.get(page), media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)


def _completed(job: Job) -> v1.TrainingCompleted:
    if job.completed is None:
        detail = f"job {job.job_id} is {job.state}; its report and files exist once it has succeeded"
        raise Problem(404, "No report yet", detail, state=job.state)
    return job.completed


def _there(blob: v1.Blob | None, job: Job, what: str) -> v1.Blob:
    if blob is None:
        raise Problem(
            404, f"No {what}", f"job {job.job_id} ended before trainers wrote one; its JSON report is available"
        )
    return blob


def _file_name(job: Job) -> str:
    return _NOT_IN_NAMES.sub("_", f"{job.domain}-{job.job_id}")
