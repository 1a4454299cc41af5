"""One data set: what it is made of, what each filter dropped, and its records."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response

from fleet_kit.errors import Problem
from lorafleet import calls
from lorafleet.clients import Call
from services.console.rendering import page
from services.console.viewer import ThisViewer, Viewer

Answer = TypeVar("Answer")
router = APIRouter(include_in_schema=False)
SIZE = 20
"""Records on one page."""
SplitName = Literal["", "train", "validation"]


@router.get("/console/datasets/{dataset_id}")
async def show(
    request: Request,
    dataset_id: str,
    viewer: ThisViewer,
    split: SplitName = "",
    offset: Annotated[int, Query(ge=0, le=100_000_000)] = 0,
) -> Response:
    """Card, dropped records and a page of what was kept; the trainer decides who may read it."""
    dataset = await viewer.call(calls.dataset(dataset_id))
    card = await _or_none(viewer, calls.dataset_card(dataset_id))
    dropped = await _or_none(viewer, calls.dataset_dropped(dataset_id))
    # One more than is shown: whether there is a next page.
    records = await _or_none(viewer, calls.dataset_records(dataset_id, split or None, offset, SIZE + 1))
    return page(
        request, "dataset.html", viewer, dataset=dataset, card=card, dropped=dropped, records=(records or [])[:SIZE],
        more=len(records or []) > SIZE, split=split, offset=offset, size=SIZE, readable=records is not None,
    )  # fmt: skip


async def _or_none(viewer: Viewer, call: Call[Answer]) -> Answer | None:
    """None for what there is not, what was removed, and a file that cannot be read: the page has the rest."""
    try:
        return await viewer.call(call)
    except Problem as problem:
        if problem.status not in (404, 410, 503):
            raise
        return None
