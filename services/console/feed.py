"""The bus as it happens: one reader for all viewers, and the newest events in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_events.topology import DATA, EVERY_EVENT, WATCHED, row_of
from fleet_kit.auth import Caller
from fleet_kit.cloudevents import Envelope
from fleet_kit.event_domain import domain_of
from fleet_kit.projection import follow

__all__ = ["Feed", "FeedFilter", "Shown", "shown_of", "trace_of"]

OVERLAP = timedelta(seconds=30)
"""Read again after the connection was lost: clocks of this process and the server may differ."""

LONGEST_BODY = 16 * 1024
"""Bytes of an event's body that are kept and shown."""

REMEMBERED = 5
"""Ids that are known, for each event that is kept: what is read again is not shown again."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An event of the bus. `number` is its place in this feed, from 1."""

    number: int
    id: str
    stream: str
    type: str
    at: datetime
    source: str
    entity: str
    domain: str
    trace: str
    """Of the request or event that it began with; empty for an event without one."""
    body: str
    """JSON, cut at `LONGEST_BODY`.

    Empty for what people wrote, which the bus holds only on its way, and for keys and tokens.
    """


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """What a viewer wants to see, of what their token lets them; empty texts admit everything."""

    caller: Caller
    type: str = ""
    domain: str = ""
    text: str = ""
    """Part of an id, of what it is about, or of a trace."""

    def admits(self, shown: Shown) -> bool:
        """Whether the viewer may and wants to see it. What concerns no domain is for those who reach every one."""
        if not self.caller.reaches(shown.domain or "*"):
            return False
        if (self.type and self.type != shown.type) or (self.domain and self.domain != shown.domain):
            return False
        return not self.text or any(self.text in part for part in (shown.id, shown.entity, shown.trace))


class Feed:
    """The newest events of all streams, in the order in which they came.

    Args:
        events: how many are kept; a viewer who falls further behind is told that some are missing.
        minutes: how far back it begins.
    """

    def __init__(self, events: int, minutes: float) -> None:
        self.boot = secrets.token_hex(4)
        """Names this feed: numbers of another one mean nothing here."""
        self._kept: deque[Shown] = deque(maxlen=events)
        self._ids: dict[str, None] = {}
        self._count = 0
        self._came = asyncio.Condition()
        self._begins = datetime.now(UTC) - timedelta(minutes=minutes)
        self._reached = {stream.name: self._begins for stream in WATCHED}

    async def follow(self, jetstream: JetStreamContext) -> None:
        """Read the streams until cancelled."""
        async with asyncio.TaskGroup() as readers:
            for stream in WATCHED:
                readers.create_task(self._read(jetstream, stream.name))

    async def _read(self, jetstream: JetStreamContext, stream: str) -> None:
        async def apply(event: Event, envelope: Envelope) -> None:
            self._reached[stream] = datetime.now(UTC)
            await self.add(stream, event, envelope)

        def since() -> datetime:
            return max(self._begins, self._reached[stream] - OVERLAP)

        await follow(jetstream, EVERY_EVENT, (Event,), apply, asyncio.Event(), stream=stream, since=since)

    async def add(self, stream: str, event: Event, envelope: Envelope) -> None:
        """Take in an event; one that is kept already is left out."""
        if envelope.name in self._ids:
            return
        if len(self._ids) >= REMEMBERED * (self._kept.maxlen or 1):
            del self._ids[next(iter(self._ids))]
        self._count += 1
        shown = shown_of(self._count, stream, event, envelope)
        self._ids[shown.id] = None
        async with self._came:
            self._kept.append(shown)
            self._came.notify_all()

    async def after(self, number: int, wanted: FeedFilter, *, every: float) -> AsyncIterator[Shown | int]:
        """What a filter admits after a place, and then as it comes.

        Yields a number every `every` seconds, be the bus quiet or busy (the place up to which was looked), and a
        negative one where so many events are no longer kept.
        """
        clock = asyncio.get_running_loop().time
        due = clock() + every
        while True:
            async with self._came:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        while self._count <= number:
                            await self._came.wait()
                oldest = self._kept[0].number if self._kept else self._count + 1
                kept = [one for one in self._kept if one.number > number] if self._count > number else []
            if number and oldest > number + 1 and kept:
                yield -(oldest - number - 1)
            for shown in kept:
                if clock() >= due:
                    yield number
                    due = clock() + every
                if wanted.admits(shown):
                    yield shown
                number = shown.number
            if clock() >= due:
                yield number
                due = clock() + every

    def newest(self, wanted: FeedFilter, limit: int) -> list[Shown]:
        """The newest that a filter admits, newest first."""
        found: list[Shown] = []
        for shown in reversed(self._kept):
            if len(found) == limit:
                break
            if wanted.admits(shown):
                found.append(shown)
        return found

    @property
    def place(self) -> int:
        """Of the newest event."""
        return self._count


def shown_of(number: int, stream: str, event: Event, envelope: Envelope) -> Shown:
    """An event as pages show it."""
    row = row_of(type(event))
    return Shown(
        number=number,
        id=envelope.name,
        stream=stream,
        type=type(event).__name__,
        at=envelope.time,
        source=envelope.source,
        entity=envelope.entity,
        domain=domain_of(event),
        trace=trace_of(envelope.headers),
        body="" if row.stream is DATA or row.area == "access" else _bounded(event.to_json()),
    )


def _bounded(body: bytes) -> str:
    """The beginning of a long body: thousands are kept, and each is sent to every viewer."""
    return body.decode() if len(body) <= LONGEST_BODY else body[:LONGEST_BODY].decode(errors="ignore") + " …"


def trace_of(headers: Mapping[str, str]) -> str:
    """The trace id of a `traceparent` (W3C Trace Context); empty without one."""
    parts = headers.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else ""
