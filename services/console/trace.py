"""The events of one trace: what followed from one request or event, over all services."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_events.topology import EVERY_EVENT, WATCHED
from fleet_kit import tasks
from fleet_kit.cloudevents import Envelope
from fleet_kit.projection import follow
from services.console.feed import Shown, shown_of, trace_of

__all__ = ["MOST", "Step", "Traces", "steps_of"]

MOST = 500
"""Events of one trace that are read: the first ones."""
SECONDS = 20.0
"""How long the streams are read for one trace."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event on the way. Seconds: since the trace's first event, and since the one before."""

    event: Shown
    since_first: float
    since_last: float
    begin: float
    """Where the event before lies on the whole way, per cent; and this one."""
    end: float


class Traces:
    """Reads the streams for single traces; two at a time, as each reads all events of its time."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream
        self._free = asyncio.Semaphore(2)

    async def read(self, trace: str, back: timedelta) -> tuple[list[Shown], bool]:
        """The trace's events of that long, in the order of time, and whether these are all.

        Raises what reading a stream raises.
        """
        found: list[Shown] = []
        async with self._free:
            since = datetime.now(UTC) - back
            reading = [asyncio.create_task(self._of(stream.name, trace, since, found)) for stream in WATCHED]
            try:
                read, late = await asyncio.wait(reading, timeout=SECONDS)
                for one in read:
                    one.result()
            finally:
                await tasks.end(*reading)
        whole = not late
        found.sort(key=lambda one: one.at)
        return found[:MOST], whole and len(found) <= MOST

    async def _of(self, stream: str, trace: str, since: datetime, found: list[Shown]) -> None:
        async def apply(event: Event, envelope: Envelope) -> None:
            if trace_of(envelope.headers) == trace and len(found) <= MOST:
                found.append(shown_of(0, stream, event, envelope))

        caught_up = asyncio.Event()
        following = asyncio.create_task(
            follow(self._jetstream, EVERY_EVENT, (Event,), apply, caught_up, stream=stream, since=lambda: since)
        )
        waiting = asyncio.create_task(caught_up.wait())
        try:
            await asyncio.wait((following, waiting), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                await following  # it ends by its fault alone
        finally:
            await tasks.end(following, waiting)


def steps_of(events: Sequence[Shown]) -> list[Step]:
    """The way in steps; events in the order of time."""
    if not events:
        return []
    first, whole = events[0].at, (events[-1].at - events[0].at).total_seconds() or 1.0
    steps: list[Step] = []
    before = first
    for event in events:
        since_first, earlier = (event.at - first).total_seconds(), (before - first).total_seconds()
        place = 100 * since_first / whole
        steps.append(Step(event, since_first, since_first - earlier, 100 * earlier / whole, place))
        before = event.at
    return steps
