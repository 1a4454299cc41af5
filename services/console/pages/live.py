"""The events of the bus as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fleet_events.topology import TOPOLOGY
from services.console.feed import FeedFilter
from services.console.rendering import fragment, page
from services.console.viewer import ThisViewer, Viewer

router = APIRouter(include_in_schema=False)
FIRST = 100
"""Events that the page begins with."""
BEAT = 15.0
"""Seconds between two signs of life of a stream, each after a check of its token: proxies end connections that look
dead, and a stream may outlive its token however busy it is."""
TYPES = sorted(row.event.__name__ for row in TOPOLOGY)

TypeQuery = Annotated[str, Query(max_length=100)]
DomainQuery = Annotated[str, Query(max_length=100)]
TextQuery = Annotated[str, Query(max_length=200)]


def _filter(viewer: Viewer, type: str, domain: str, text: str) -> FeedFilter:
    return FeedFilter(viewer.caller.restricted_to("adapters:read"), type, domain, text.strip())


@router.get("/console/live")
async def show(
    request: Request, viewer: ThisViewer, type: TypeQuery = "", domain: DomainQuery = "", text: TextQuery = ""
) -> Response:
    """The newest events, and a stream of those that follow."""
    viewer.caller.restricted_to("adapters:read").hold("adapters:read")
    feed = viewer.service.parts.feed
    newest = feed.newest(_filter(viewer, type, domain, text), FIRST)
    return page(
        request, "live.html", viewer, events=newest, types=TYPES, type=type, domain=domain, text=text,
        place=f"{feed.boot}-{feed.place}",
    )  # fmt: skip


@router.get("/console/live/events", response_class=EventSourceResponse)
async def events(
    *,
    viewer: ThisViewer,
    type: TypeQuery = "",
    domain: DomainQuery = "",
    text: TextQuery = "",
    after: Annotated[str, Query(max_length=40)] = "",
    last_event_id: Annotated[str, Header(max_length=40)] = "",
) -> AsyncIterator[ServerSentEvent]:
    """Rows of the table as server-sent events; `Last-Event-ID` continues after it."""
    viewer.caller.restricted_to("adapters:read").hold("adapters:read")
    feed = viewer.service.parts.feed
    boot, _, number = (last_event_id or after).partition("-")
    # Numbers of a feed before, or of another replica, mean nothing here: what is kept is sent again, and the page
    # leaves out the rows that it has.
    place = int(number) if boot == feed.boot and number.isdigit() else 0
    wanted = _filter(viewer, type, domain, text)
    async for one in feed.after(place, wanted, every=BEAT):
        if isinstance(one, int):
            if one >= 0:
                await viewer.verified()
            yield ServerSentEvent(event="beat" if one >= 0 else "missed", raw_data=str(abs(one)))
        else:
            row = fragment("live_row.html", one=one)
            yield ServerSentEvent(event="row", raw_data=row, id=f"{feed.boot}-{one.number}")
