"""Stops work for a client that has gone away."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

T = TypeVar("T")
LOOK_EVERY = 0.25


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The work's result, or None once the client has gone; the work is cancelled then.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    watching = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        for one in (task, watching):
            one.cancel()
        await asyncio.gather(task, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    # The server tells of a disconnect only when it is asked.
    while not await request.is_disconnected():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_EVERY)
