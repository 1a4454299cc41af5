"""The end of background tasks."""

import asyncio
from typing import Any

__all__ = ["end"]

_AGAIN_AFTER = 2.0
"""Seconds that a task has for its own cleaning up, before it is cancelled once more."""


async def end(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks until every one has ended; what they raise is dropped.

    One cancellation is not enough: on Python 3.11 `asyncio.wait_for`, which requests and fetches of nats-py use, loses
    one that comes together with its result (https://github.com/python/cpython/issues/86296), and the task continues.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        ended, running = await asyncio.wait(running, timeout=_AGAIN_AFTER)
        for task in ended:
            if not task.cancelled():
                task.exception()  # retrieved, so that it is not reported as never looked at
