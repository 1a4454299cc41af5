"""What consumers gave up, why, and the way back."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from fleet_events.topology import STORING
from fleet_kit.errors import Problem
from lorafleet import calls
from lorafleet.calls.paths import path_segment
from lorafleet.responses import DeadLetter, DeadLetters
from services.console.rendering import page
from services.console.viewer import FORM, Submitted, ThisViewer, Viewer

router = APIRouter(include_in_schema=False)
SHOWN = 200
"""Letters of each service on one page."""

ServiceName = Annotated[str, Path(pattern=f"^({'|'.join(STORING)})$")]


@router.get("/console/dead-letters")
async def listed(request: Request, viewer: ThisViewer, replayed: str = "") -> Response:
    """Those of all services, newest first; a service that is unavailable is named."""
    viewer.caller.restricted_to("admin").hold("admin")
    of_service = dict(zip(STORING, await asyncio.gather(*(_of(viewer, name) for name in STORING)), strict=True))
    return page(
        request,
        "dead_letters.html",
        viewer,
        letters=merged(of_service),
        more=[name for name, found in of_service.items() if found and found.more],
        earlier={name: found.earlier for name, found in of_service.items() if found and found.earlier},
        unavailable=[name for name, found in of_service.items() if found is None],
        replayed=replayed[:200],
    )


@router.get("/console/dead-letters/{service}/{letter_id}")
async def show(request: Request, service: ServiceName, letter_id: str, viewer: ThisViewer) -> Response:
    """One letter, and the form that replays it."""
    letter = await viewer.call(calls.dead_letter(service, letter_id))
    return page(request, "dead_letter.html", viewer, service=service, letter=letter, fault="")


@router.post("/console/dead-letters/{service}/{letter_id}/replay", openapi_extra=FORM)
async def replay(
    request: Request, service: ServiceName, letter_id: str, viewer: ThisViewer, _form: Submitted
) -> Response:
    """Have it handled once more; one that fails again stays, and the page tells why."""
    try:
        done = await viewer.call(calls.replay_dead_letter(service, letter_id))
    except Problem as problem:
        if problem.status != 409:
            raise
        # Raises where it is gone: somebody else has replayed it.
        letter = await viewer.call(calls.dead_letter(service, letter_id))
        return page(
            request, "dead_letter.html", viewer, status=409, service=service, letter=letter, fault=problem.detail
        )
    return RedirectResponse(f"/console/dead-letters?replayed={path_segment(done.outcome)}", 303)


async def _of(viewer: Viewer, service: str) -> DeadLetters | None:
    return await viewer.if_available(calls.dead_letters(service, SHOWN))


def merged(of_service: dict[str, DeadLetters | None]) -> list[tuple[str, DeadLetter]]:
    """(service, letter), newest first."""
    every = [(name, letter) for name, found in of_service.items() if found for letter in found.letters]
    return sorted(every, key=lambda one: one[1].time, reverse=True)
