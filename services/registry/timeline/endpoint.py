"""HTTP in: a family at a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query

from fleet_kit.errors import Problem
from services.registry.access import Reader
from services.registry.parts import ThisService
from services.registry.store import timeline
from services.registry.timeline.history import History
from services.registry.timeline.view import FamilyAt

router = APIRouter(prefix="/families")

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


@router.get("/{family}/at", summary="What a family served at a moment, approved by whom and on what evidence")
async def get_family_at(
    family: Annotated[str, Path(max_length=200)],
    time: Annotated[str, Query(max_length=60, description="RFC 3339 with its time zone, not in the future")],
    caller: Reader,
    service: ThisService,
    entries: Annotated[int, Query(ge=0, le=1000, description="Of the audit trail before, and after")] = 20,
) -> FamilyAt:
    moment = past_moment(time, datetime.now(UTC))
    async with (
        service.db.acquire(timeout=5) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        domain = await timeline.family_domain(connection, family)
        if domain is None or not caller.reaches(domain):
            detail = f"no family {family!r} in the domains of this token; it is the `family` of GET /v1/adapters"
            raise Problem(404, "Unknown family", detail, field="family")
        history = await History.read(connection, family, domain)
    return history.at(moment, entries)


def past_moment(text: str, now: datetime) -> datetime:
    """A time of RFC 3339, section 5.6, in UTC; a 422 Problem for another form, no time zone, or the future."""
    expected = "an RFC 3339 time with its zone, for example 2026-01-31T12:00:00Z (write + as %2B in a URL)"
    if not _RFC3339.fullmatch(text):
        raise Problem(422, "Invalid request", f"time is {text!r}, expected {expected}", field="time")
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Problem(
            422, "Invalid request", f"time is {text!r} ({error}), expected {expected}", field="time"
        ) from error
    if moment > now:
        detail = f"time {text} is in the future; it is {now.isoformat()} here"
        raise Problem(422, "Invalid request", detail, field="time")
    return moment
