"""One trace over all services, as a timeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from services.console.feed import FeedFilter
from services.console.rendering import page
from services.console.trace import MOST, steps_of
from services.console.viewer import ThisViewer

router = APIRouter(include_in_schema=False)

TraceId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


@router.get("/console/trace/{trace}")
async def show(
    request: Request, trace: TraceId, viewer: ThisViewer, hours: Annotated[int, Query(ge=1, le=168)] = 24
) -> Response:
    """What the viewer may see of it, of so many hours."""
    caller = viewer.caller.restricted_to("adapters:read")
    caller.hold("adapters:read")
    events, whole = await viewer.service.parts.traces.read(trace, timedelta(hours=hours))
    admitted = FeedFilter(caller)
    seen = [one for one in events if admitted.admits(one)]
    return page(
        request, "trace.html", viewer, trace=trace, steps=steps_of(seen), hidden=len(events) - len(seen),
        whole=whole, hours=hours, most=MOST, services=sorted({one.source for one in seen}),
    )  # fmt: skip
