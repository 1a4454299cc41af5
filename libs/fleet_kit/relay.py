"""The relay publishes a service's outbox: one a service (an advisory lock), in the order of the rows.

A row is marked only after JetStream's PubAck. A crash between the two publishes again under the same Nats-Msg-Id, and
consumers have their inbox. An event that JetStream refuses for good is stored as a dead letter instead, and its row is
marked with where that is.

Many events of one stream are published as an atomic batch where the server has it (see `atomic_publishing`); few ones,
and those of a batch that was refused, one by one in windows without a repeated entity.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile

import structlog
from nats.js import JetStreamContext
from nats.js.api import PubAck

from fleet_events.topology import row_of_subject
from fleet_kit import metrics, outbox, outbox_check, retention, tasks
from fleet_kit.atomic_publishing import AtomicPublisher
from fleet_kit.db import Connection, Pool, leaves_a_standby
from fleet_kit.dead_letter_writer import store_refused
from fleet_kit.errors import PublicationRefused
from fleet_kit.faults import describe, is_transient
from fleet_kit.outbox import Waiting
from fleet_kit.publishing import publish_soon

__all__ = ["Relay"]

log = structlog.get_logger()

WINDOW = 256
"""Events that are read, published and marked together at most."""
LATE = 1000
"""Positions before the last one that was published in which an event is looked for at every wake: a transaction may
commit after one that began later. Further back the index is full of what has been published, until it is vacuumed."""
IDLE_SECONDS = 0.5
"""Until the whole outbox is read, also without a wake: for what was committed late or unnoticed, and for what an
operator changes."""


class Relay:
    """Publishes a service's outbox for as long as the service runs."""

    def __init__(self, service: str, pool: Pool, jetstream: JetStreamContext, server: Callable[[], str]) -> None:
        """`server` gives the id of the server process that the connection leads to."""
        self._service = service
        self._pool = pool
        self._jetstream = jetstream
        self._server = server
        self._wake = asyncio.Event()
        self._atomic = AtomicPublisher(jetstream)
        self._singly = 0
        """Position up to which events are published one by one: they were refused as a batch, or are too few."""
        self.leads = False
        """Whether this process publishes the service's outbox; a transaction of another one has to notify it."""

    def wake(self) -> None:
        """Notify the relay that a transaction with events has committed in this process."""
        self._wake.set()

    async def run(self) -> None:
        """Relay until cancelled. Faults of the database or the bus are waited out."""
        pause = IDLE_SECONDS
        while True:
            try:
                async with leaves_a_standby(self._pool), self._pool.acquire() as connection:
                    if await outbox.lead(connection, self._service):
                        pause = IDLE_SECONDS
                        async with self._leading(connection):
                            await self._serve(connection)
            except Exception as error:
                if not isinstance(error, RelayStalled) and not is_transient(error):
                    raise
                log.warning("outbox_relay_waiting", service=self._service, reason=describe(error))
                pause = min(pause * 2, 5.0)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _leading(self, connection: Connection) -> AsyncIterator[None]:
        """Be woken by the commits of other processes too."""

        def notified(*_: object) -> None:
            self._wake.set()

        channel = outbox.channel(self._service)
        await connection.add_listener(channel, notified)
        self.leads = True
        try:
            yield
        finally:
            self.leads = False
            if not connection.is_closed():
                await connection.remove_listener(channel, notified)

    async def _serve(self, connection: Connection) -> None:
        checked, care_at, streams = "", 0.0, set[str]()
        reached, whole_at = 0, 0.0
        while True:
            self._wake.clear()
            server, now = self._server(), time.monotonic()
            if server != checked or now >= care_at:
                await outbox_check.check(connection, self._jetstream, server)
                more = await retention.sweep(connection, self._service)
                checked, care_at = server, now + (IDLE_SECONDS if more else retention.SWEEP_SECONDS)
                self._atomic.forget()  # another server, or another provisioning, may permit what this one did not
                whole_at = 0.0  # for what is published again
            whole = now >= whole_at
            rows = await outbox.waiting(connection, WINDOW, 0 if whole else reached - LATE)
            if whole and len(rows) < WINDOW:
                whole_at = now + IDLE_SECONDS
            metrics.OUTBOX_WAITING.labels(self._service).set(len(rows))
            full = len(rows) == WINDOW
            reached = max([reached, *(row.position for row in rows)])
            while rows:
                sent, stored, fault = await self._send(rows)
                for stream in {ack.stream for _, ack in stored} - streams:
                    await outbox_check.note(connection, stream, server)
                    streams.add(stream)
                await outbox.mark(connection, stored)
                if fault is not None:
                    # nats-py raises many unrelated classes here; each of them is tried again.
                    raise RelayStalled(f"publishing to JetStream: {describe(fault)}") from fault
                rows = rows[sent:]
            if full:
                continue
            # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with what it waits for,
            # and the relay would outlive its service.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._wake.wait()

    async def _send(self, rows: Sequence[Waiting]) -> tuple[int, list[tuple[Waiting, PubAck]], Exception | None]:
        """Publish from the beginning of the rows.

        Returns:
            How many rows that were, where each of them is stored that is, and what failed for the first of the others.
        """
        if rows[0].position > self._singly:
            stream, batch = of_one_stream(rows)
            try:
                acks = await self._atomic.publish(stream, [row.event for row in batch])
            except Exception as error:
                return len(batch), [], error
            if acks is not None:
                return len(batch), list(zip(batch, acks, strict=True)), None
            self._singly = batch[-1].position
        window = distinct_entities(rows)
        stored, fault = await self._publish(window)
        return len(window), stored, fault

    async def _publish(self, window: Sequence[Waiting]) -> tuple[list[tuple[Waiting, PubAck]], Exception | None]:
        """Send a window in order and wait for every answer.

        Returns:
            Where each event is stored that is, and what failed for the first of the others.
        """
        publications = [publish_soon(self._jetstream, row.event) for row in window]
        stored: list[tuple[Waiting, PubAck]] = []
        fault: Exception | None = None
        try:
            await asyncio.wait(publications)
            for row, publication in zip(window, publications, strict=True):
                try:
                    stored.append((row, await self._outcome(row, publication)))
                except Exception as error:
                    fault = fault or error
        finally:
            if not all(publication.done() for publication in publications):
                await tasks.end(*publications)
        return stored, fault

    async def _outcome(self, row: Waiting, publication: "asyncio.Task[PubAck]") -> PubAck:
        try:
            return await publication
        except PublicationRefused as refusal:
            return await store_refused(self._jetstream, self._service, row.event, str(refusal))


class RelayStalled(Exception):
    """JetStream did not acknowledge."""


def of_one_stream(rows: Sequence[Waiting]) -> tuple[str, list[Waiting]]:
    """The name of the stream of the first row, and the longest beginning whose events all go there."""

    def stream_of(row: Waiting) -> str:
        known = row_of_subject(row.event.subject)
        return known.stream.name if known is not None else ""

    stream = stream_of(rows[0])
    return stream, list(takewhile(lambda row: stream_of(row) == stream, rows))


def distinct_entities(rows: Sequence[Waiting]) -> list[Waiting]:
    """The longest beginning in which no entity appears twice.

    Acks of a window are awaited together. With one event an entity in it, a publish that fails alone can
    never put two events of the same thing out of order.
    """
    seen: set[str] = set()

    def fresh(row: Waiting) -> bool:
        known = row.event.entity in seen
        seen.add(row.event.entity)
        return not known

    return list(takewhile(fresh, rows))
