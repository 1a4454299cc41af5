"""Whether every part works, and what each service shows of itself."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import APIRouter, Request, Response

from fleet_kit.faults import describe
from lorafleet import calls
from lorafleet.home import SERVICES
from services.console.figures import Figure, figures_of
from services.console.rendering import page, part
from services.console.together import together
from services.console.viewer import ThisViewer, Viewer

router = APIRouter(include_in_schema=False)


@router.get("/console/health")
async def show(request: Request, viewer: ThisViewer) -> Response:
    """Every service's readiness; the table alone for htmx, which renews it every few seconds."""
    names = [name for name in SERVICES if name != viewer.service.name]
    found = await asyncio.gather(*(_state(viewer, name) for name in names))
    parts = {name: ready for name, (ready, _) in zip(names, found, strict=True)}
    figures = {name: own for name, (_, own) in zip(names, found, strict=True)}
    if "hx-request" in request.headers:
        return part(request, "health_table.html", viewer, parts=parts, figures=figures)
    return page(request, "health.html", viewer, parts=parts, figures=figures)


async def _state(viewer: Viewer, service: str) -> tuple[dict[str, object], list[Figure] | None]:
    return await together(_ready(viewer, service), figures_of(viewer, service))


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
