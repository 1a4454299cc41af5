"""HTTP in: the pages, and the files that they bring."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from services.console import assets
from services.console.pages import (
    compare,
    dataset,
    dead_letters,
    fleet,
    health,
    jobs,
    live,
    moment,
    playground,
    provider_sign_in,
    review,
    sign_in,
    trace,
    version,
)

router = APIRouter()
for pages in (
    sign_in,
    provider_sign_in,
    fleet,
    version,
    review,
    compare,
    jobs,
    dataset,
    playground,
    live,
    trace,
    dead_letters,
    health,
    moment,
    assets,
):
    router.include_router(pages.router)


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """To the first page."""
    return RedirectResponse("/console/", 303)
