"""Whether every part works, and what each service shows of itself."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import APIRouter, Request, Response

from fleet_kit.faults import describe
from lorafleet import calls
from lorafleet.home import SERVICES
from services.console.rendering import page, part
from services.console.viewer import ThisViewer, Viewer

router = APIRouter(include_in_schema=False)


@router.get("/console/health")
async def show(request: Request, viewer: ThisViewer) -> Response:
    """Every service's readiness; the table alone for htmx, which renews it every few seconds."""
    names = [name for name in SERVICES if name != viewer.service.name]
    parts = dict(zip(names, await asyncio.gather(*(_ready(viewer, name) for name in names)), strict=True))
    if "hx-request" in request.headers:
        return part(request, "health_table.html", viewer, parts=parts)
    return page(request, "health.html", viewer, parts=parts)


async def _ready(viewer: Viewer, service: str) -> dict[str, object]:
    """The answer of /readyz, which is one also where the service is not ready."""
    call = calls.health(service)
    try:
        base = viewer.service.settings.service_url(service)
        response = await viewer.service.http.send(call.request(base, viewer.token))
        return _readiness(response.json())
    except (httpx.HTTPError, ValueError) as error:
        return {"ready": False, "checks": {"http": describe(error)}}


def _readiness(answer: object) -> dict[str, object]:
    """A service's answer; raises ValueError for one of another form, as a proxy in between may give."""
    if not isinstance(answer, dict) or not isinstance(answer.get("checks", {}), dict):
        raise ValueError("/readyz answered something else than readiness")
    return answer
