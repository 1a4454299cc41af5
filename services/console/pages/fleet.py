"""Families by domain: active version, score, traffic, rating."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lorafleet import calls
from services.console.rendering import page, part
from services.console.together import together
from services.console.viewer import ThisViewer

router = APIRouter(include_in_schema=False)
PAGE = 50


@router.get("/console/")
async def listed_families(
    *,
    request: Request,
    viewer: ThisViewer,
    text: Annotated[str, Query(max_length=200)] = "",
    domain: Annotated[str, Query(max_length=100)] = "",
    show: Annotated[str, Query(pattern="^(waiting|serving|none)?$")] = "",
    base: Annotated[str, Query(max_length=200)] = "",
    below: Annotated[str, Query(pattern=r"^([0-9]{1,2}(\.[0-9]{1,2})?|100)?$")] = "",
    sort: Annotated[str, Query(pattern="^(family|score|answers|rating|newest)$")] = "family",
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """The table alone for htmx, which searches while one types."""
    wanted = calls.families(
        domain or None,
        text,
        waiting=show == "waiting",
        serving={"serving": True, "none": False}.get(show),
        base_model=base or None,
        score_below=float(below) if below else None,
        sort=sort,
        offset=offset,
        limit=PAGE,
    )
    if "hx-request" in request.headers:
        found = await viewer.call(wanted)
        return part(request, "fleet_table.html", viewer, found=found, offset=offset, sort=sort, size=PAGE)
    found, statistics = await together(viewer.call(wanted), viewer.call(calls.statistics()))
    return page(request, "fleet.html", viewer, found=found, statistics=statistics, offset=offset, sort=sort, size=PAGE)
