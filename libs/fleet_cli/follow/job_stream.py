"""Reads a job's stream to its end, over whatever cuts it off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from fleet_cli.client import calls
from fleet_cli.client.clients import AsyncFleetClient, FleetClient
from fleet_cli.client.errors import Unreachable
from fleet_cli.follow.job_progress import Course, Told, read_told

_PAUSE = 2.0
_PATIENCE = 30
"""Tries in a row without an event, a minute's worth, after which a trainer that was there counts as gone."""


def follow_course(fleet: FleetClient, job_id: str) -> Iterator[Told]:
    """Every event of the job, each once, until it is final.

    Raises `ServerRefused` for a job that is not there, `Unreachable` for a trainer that is not or stays away.
    """
    course, tries = Course(), 0
    while not course.final:
        try:
            for event in fleet.stream(calls.job_course(job_id, course.place)):
                tries, told = 0, read_told(event)
                course = course.told(told)
                yield told
        except Unreachable:
            if course.state is None or tries >= _PATIENCE:
                raise
        if not course.final:
            tries += 1
            time.sleep(_PAUSE)


async def follow_course_async(fleet: AsyncFleetClient, job_id: str) -> AsyncIterator[Told]:
    """The same for asyncio; a trainer that is away is waited for as long as it takes."""
    course = Course()
    while not course.final:
        try:
            async for event in fleet.stream(calls.job_course(job_id, course.place)):
                told = read_told(event)
                course = course.told(told)
                yield told
        except Unreachable:
            pass
        if not course.final:
            await asyncio.sleep(_PAUSE)
