"""What the console has beyond the kit's `Service`, and the types under which endpoints get it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import Depends

from fleet_kit import tasks
from fleet_kit.faults import describe
from fleet_kit.http import dependency
from fleet_kit.service import Service
from services.console.feed import Feed
from services.console.settings import ConsoleSettings
from services.console.trace import Traces


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """The bus as it happens, and as it was."""

    feed: Feed
    traces: Traces


ConsoleService: TypeAlias = Service[ConsoleSettings, ConsoleParts]
ThisService = Annotated[ConsoleService, Depends(dependency(ConsoleService))]


@asynccontextmanager
async def open_parts(service: ConsoleService) -> AsyncIterator[ConsoleParts]:
    """Follow the bus for as long as the service runs."""
    feed = Feed(service.settings.live_events, service.settings.live_minutes)
    following = asyncio.create_task(feed.follow(service.jetstream))

    async def follows() -> None:
        if following.done():
            fault = None if following.cancelled() else following.exception()
            raise RuntimeError(f"the bus is no longer followed: {describe(fault) if fault else 'it was ended'}")

    service.extra_checks["feed"] = follows
    try:
        yield ConsoleParts(feed, Traces(service.jetstream))
    finally:
        await tasks.end(following)
