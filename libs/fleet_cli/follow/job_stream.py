"""Reads a job's stream to its end, and reconnects where it is interrupted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from fleet_cli.follow.job_progress import JobEvent, JobProgress, read_event
from lorafleet import calls
from lorafleet.clients import AsyncFleetClient, FleetClient
from lorafleet.errors import Unreachable

_RETRY_SECONDS = 2.0
_MAX_TRIES = 30
"""Consecutive tries without an event, a minute's worth, after which a trainer that had answered counts as gone."""


def follow_job(fleet: FleetClient, job_id: str) -> Iterator[JobEvent]:
    """Every event of the job, each once, until it is final.

    Raises `ServiceError` for an unknown job, `Unreachable` for a trainer that does not answer or stays unavailable.
    """
    progress, tries = JobProgress(), 0
    while not progress.final:
        try:
            for data in fleet.stream(calls.job_stream(job_id, progress.last_event_id)):
                tries, event = 0, read_event(data)
                progress = progress.after(event)
                yield event
        except Unreachable:
            if progress.state is None or tries >= _MAX_TRIES:
                raise
        if not progress.final:
            tries += 1
            time.sleep(_RETRY_SECONDS)


async def follow_job_async(fleet: AsyncFleetClient, job_id: str) -> AsyncIterator[JobEvent]:
    """The same for asyncio; waits for an unavailable trainer without a limit."""
    progress = JobProgress()
    while not progress.final:
        try:
            async for data in fleet.stream(calls.job_stream(job_id, progress.last_event_id)):
                event = read_event(data)
                progress = progress.after(event)
                yield event
        except Unreachable:
            pass
        if not progress.final:
            await asyncio.sleep(_RETRY_SECONDS)
