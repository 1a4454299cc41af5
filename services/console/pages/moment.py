"""What a family served at a moment, approved by whom, on what evidence."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lorafleet import calls
from services.console.rendering import page
from services.console.viewer import ThisViewer

router = APIRouter(include_in_schema=False)
ENTRIES = 20
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)


@router.get("/console/at")
async def show(
    request: Request,
    viewer: ThisViewer,
    family: Annotated[str, Query(max_length=200)] = "",
    time: Annotated[str, Query(max_length=40)] = "",
    answer: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """A family at a moment (UTC), or the whole chain behind one answer; a form while neither is named."""
    at = _whole(time) if time else datetime.now(UTC).isoformat(timespec="seconds")
    found = await viewer.maybe(calls.family_at(family, at, ENTRIES) if family else None)
    chain = await viewer.maybe(calls.answer_provenance(answer) if answer else None)
    return page(request, "moment.html", viewer, family=family, at=at, found=found, answer=answer, chain=chain)


def _whole(time: str) -> str:
    """A time of a browser's form, which has no zone, in UTC."""
    if _ZONE.search(time):
        return time
    return f"{time}Z" if time.count(":") > 1 else f"{time}:00Z"
