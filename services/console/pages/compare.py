"""Versions against one another."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lorafleet import calls
from services.console.rendering import page
from services.console.viewer import ThisViewer

router = APIRouter(include_in_schema=False)


@router.get("/console/compare")
async def show(request: Request, viewer: ThisViewer, versions: Annotated[list[str] | None, Query()] = None) -> Response:
    """Metrics with intervals, tested differences, configuration, preferences; a form while fewer than two are named."""
    named = [one for text in versions or [] for one in text.replace(",", " ").split()]
    if len(named) < 2:
        return page(request, "compare.html", viewer, named=named, found=None)
    found = await viewer.call(calls.compare(named))
    return page(request, "compare.html", viewer, named=named, found=found)
