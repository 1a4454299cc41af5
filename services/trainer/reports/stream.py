"""A job's course as server-sent events, read from the database: any replica can answer, and continue for another.

Nothing is kept for a reader but its place. Rows are read a page at a time, when the reader has taken those before, so
that a slow one holds no memory and no connection.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, Self

from fastapi import Depends, Header
from fastapi.sse import ServerSentEvent

from fleet_kit.errors import Problem
from services.trainer.jobs import metrics
from services.trainer.jobs import store as jobs
from services.trainer.jobs.context import JobContext
from services.trainer.reports import store
from services.trainer.reports.schemas import MetricView, StateView, ValidationView
from services.trainer.training.protocol import Stepped, Validated

PAGE = 500
"""Rows read and held at once for a reader."""
_NEVER_AGAIN = 2**31 - 1
_PLACE = re.compile(r"(\d{1,9})\.(\d{1,9})")


@dataclass(frozen=True)
class StreamPosition:
    """How far a reader is: the last step and the last validation (by its step) that it got. An event's id."""

    step: int = 0
    validation: int = 0

    def __str__(self) -> str:
        return f"{self.step}.{self.validation}"

    @classmethod
    def of(cls, last_event_id: str) -> Self:
        """Raises `Problem` for what is no id of ours."""
        if not last_event_id:
            return cls()
        found = _PLACE.fullmatch(last_event_id)
        if found is None:
            detail = f"Last-Event-ID: {last_event_id[:40]!r} is refused, expected an event's id, for example 12.10"
            raise Problem(422, "Invalid request", detail, field="Last-Event-ID")
        return cls(int(found[1]), int(found[2]))

    def behind(self, row: Stepped | Validated) -> Self:
        """The place of a reader that has got this row too."""
        return replace(self, step=row.step) if isinstance(row, Stepped) else replace(self, validation=row.step)


async def last_place(last_event_id: Annotated[str, Header()] = "") -> StreamPosition:
    """Where a reader that was cut off continues."""
    return StreamPosition.of(last_event_id)


LastPlace = Annotated[StreamPosition, Depends(last_place)]


async def course(job_id: str, place: StreamPosition, service: JobContext) -> AsyncIterator[ServerSentEvent]:
    """Its state, then steps, validations and further states as they are written; ends with the final state."""
    with metrics.STREAMS.track_inprogress():
        published: StateView | None = None
        while True:
            page = await _read(job_id, place, service)
            if page.state != published and not page.state.final:
                published = page.state
                yield _event(published, place)
            for row in page.rows:
                place = place.behind(row)
                yield _event(_view(row), place)
            if page.full:
                continue
            if page.state.final:
                # Browsers connect again after an end; this one is for good.
                yield _event(page.state, place, retry=_NEVER_AGAIN)
                return
            await asyncio.sleep(service.settings.flush_seconds)


@dataclass(frozen=True)
class _Page:
    """What was read at once: rows in their order, a step before the validation that followed it."""

    state: StateView
    rows: tuple[Stepped | Validated, ...]
    full: bool


async def _read(job_id: str, place: StreamPosition, service: JobContext) -> _Page:
    async with service.db.acquire(timeout=5) as connection:
        # The job first: what one that is final has logged is complete by then.
        job = await jobs.find_job(connection, job_id)
        steps = await store.steps_after(connection, job_id, place.step, PAGE)
        validations = await store.validations_after(connection, job_id, place.validation, PAGE)
    if job is None:
        raise LookupError(f"job {job_id} is not in the database")
    full = PAGE in (len(steps), len(validations))
    if len(steps) == PAGE:
        # Those behind the last step of this page follow with it.
        validations = [one for one in validations if one.step <= steps[-1].step]
    rows: list[Stepped | Validated] = [*steps, *validations]
    rows.sort(key=lambda row: (row.step, isinstance(row, Validated)))
    return _Page(StateView.of(job), tuple(rows), full)


def _view(row: Stepped | Validated) -> MetricView | ValidationView:
    return MetricView.of(row) if isinstance(row, Stepped) else ValidationView.of(row)


def _event(
    view: MetricView | ValidationView | StateView, place: StreamPosition, retry: int | None = None
) -> ServerSentEvent:
    return ServerSentEvent(data=view, event=view.kind, id=str(place), retry=retry)
