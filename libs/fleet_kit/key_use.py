"""Which API keys a process was called with, reported at most once a minute."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NoReturn

import nats.errors
import structlog

from fleet_events.message import Event
from fleet_events.v1 import ApiKeysUsed, ApiKeyUse
from fleet_kit.errors import PublicationRefused
from fleet_kit.faults import describe

__all__ = ["KeyUse"]

log = structlog.get_logger()

EVERY = 60.0
"""Seconds between two reports."""
USES_AN_EVENT = 1000
"""As many as the contract lets one event name."""


class KeyUse:
    """The last use of each key since the last report."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}

    def note(self, key_id: str, at: float) -> None:
        """A key was used, at that many seconds since 1970."""
        self._used[key_id] = at

    async def report(self, publish: Callable[[Event, str], Awaitable[None]], every: float = EVERY) -> NoReturn:
        """Publish what was noted, until cancelled. What cannot be published now is tried again with the next report."""
        while True:
            await asyncio.sleep(every)
            try:
                while self._used:
                    await self._publish_some(publish)
            except (nats.errors.Error, OSError, TimeoutError, PublicationRefused) as error:
                log.warning("key_use_not_reported", reason=describe(error))

    async def _publish_some(self, publish: Callable[[Event, str], Awaitable[None]]) -> None:
        some = dict(itertools.islice(self._used.items(), USES_AN_EVENT))
        uses = tuple(ApiKeyUse(key_id=name, used_at=datetime.fromtimestamp(at, UTC)) for name, at in some.items())
        await publish(ApiKeysUsed(uses=uses), "api-keys")
        for name, at in some.items():
            if self._used.get(name) == at:
                del self._used[name]
