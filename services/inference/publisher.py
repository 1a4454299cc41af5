"""Publishes events without holding up an answer: a bounded buffer, sent in order, each until it is acknowledged."""

import asyncio
from collections import deque

import nats.errors
import structlog
from nats.js import JetStreamContext
from prometheus_client import Counter

from fleet_events import Event
from fleet_kit.cloudevents import Outgoing, seal
from fleet_kit.dead_letter_writer import store_refused
from fleet_kit.errors import PublicationRefused
from fleet_kit.faults import describe
from fleet_kit.publishing import publish
from fleet_kit.tracing import trace_headers
from services.inference.backlog import Backlog

log = structlog.get_logger()

DROPPED = Counter(
    "lorafleet_inference_events_dropped_total", "Events dropped because the bus was unavailable for too long"
)
LONGEST_WAIT = 5.0


class Publisher:
    """Keeps at most `limit` events while the bus is unavailable; beyond it the oldest are dropped and counted."""

    def __init__(self, jetstream: JetStreamContext, limit: int) -> None:
        self._jetstream = jetstream
        self._limit = limit
        self._buffer: deque[Outgoing] = deque()
        self._some = asyncio.Event()
        self.backlog = Backlog()

    def publish(self, event: Event, entity: str) -> None:
        """Takes the event; returns at once. Its id and time are fixed now, so that sending it twice is one event."""
        self._buffer.append(seal(event, service="inference", entity=entity, trace=trace_headers()))
        self.backlog.put()
        if len(self._buffer) > self._limit:
            dropped = self._buffer.popleft()
            self.backlog.dropped()
            DROPPED.inc()
            log.warning("event_dropped", subject=dropped.subject, entity=dropped.entity, limit=self._limit)
        self._some.set()

    say = publish
    """The former name: a stand-in for a publisher that is given to a `Generator` may have this one alone."""

    async def run(self) -> None:
        """Sends until cancelled."""
        wait = 0.1
        while True:
            await self._some.wait()
            while self._buffer:
                outgoing = self._buffer[0]
                try:
                    await self._send(outgoing)
                except (nats.errors.Error, OSError, TimeoutError) as error:
                    self.backlog.stuck()
                    log.warning("event_waits_for_the_bus", buffered=len(self._buffer), reason=describe(error))
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
                    continue
                wait = 0.1
                # The oldest may have been dropped while it was being sent.
                if self._buffer and self._buffer[0] is outgoing:
                    self._buffer.popleft()
                    self.backlog.left()
            self._some.clear()

    async def drain(self, seconds: float) -> None:
        """Waits until everything is sent, or gives up and logs how much is lost."""
        try:
            async with asyncio.timeout(seconds):
                while self._buffer:
                    await self._send(self._buffer[0])
                    self._buffer.popleft()
        except (nats.errors.Error, OSError, TimeoutError):
            log.warning("events_lost_at_exit", events=len(self._buffer))

    async def _send(self, outgoing: Outgoing) -> None:
        try:
            await publish(self._jetstream, outgoing)
        except PublicationRefused as refusal:
            await store_refused(self._jetstream, "inference", outgoing, str(refusal))
