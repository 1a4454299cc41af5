"""Several calls at once, typed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


async def together(first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second]) -> tuple[First, Second]:
    """Both results; the first failure cancels the other and is raised."""
    try:
        async with asyncio.TaskGroup() as running:
            one, two = running.create_task(first), running.create_task(second)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return one.result(), two.result()
