"""The outbox: a state change and the events it has to publish are one transaction; a relay publishes them after it.

One relay a service (an advisory lock), in the order of the rows; a row is marked only after JetStream's PubAck.
A crash between the two publishes again under the same Nats-Msg-Id, and consumers have their inbox. An event that
JetStream refuses for good is stored as a dead letter instead, and its row is marked with where that is.

A PubAck alone is not durable: by default nats-server flushes its files every two minutes (`sync_interval`), so a power
cut can lose what it had acknowledged. Therefore published rows are kept (see `retention`) with where they were stored,
and `outbox_check` has them published again when the server has lost them.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import structlog
from nats.js import JetStreamContext
from nats.js.api import PubAck

from fleet_kit import metrics, outbox_check, retention, tasks
from fleet_kit.cloudevents import Outgoing
from fleet_kit.db import Connection, Pool, leaves_a_standby
from fleet_kit.dead_letter_writer import store_refused
from fleet_kit.errors import PublicationRefused
from fleet_kit.faults import describe, is_transient
from fleet_kit.publishing import publish_soon

__all__ = ["Relay", "add", "unpublished"]

log = structlog.get_logger()

WINDOW = 256
IDLE_SECONDS = 0.5


async def add(connection: Connection, outgoing: Outgoing) -> None:
    """Write an event to the outbox, in the caller's transaction."""
    await connection.execute(
        "insert into outbox (event_id, subject, entity, headers, body) values ($1, $2, $3, $4, $5)"
        " on conflict (event_id) do nothing",
        outgoing.id,
        outgoing.subject,
        outgoing.entity,
        outgoing.headers,
        outgoing.body,
    )


async def unpublished(connection: Connection) -> int:
    """How many events wait for the relay."""
    return int(await connection.fetchval("select count(*) from outbox where published_at is null"))


@dataclass(frozen=True)
class Waiting:
    """A row that is not marked as published."""

    position: int
    event: Outgoing


async def _waiting(connection: Connection) -> list[Waiting]:
    rows = await connection.fetch(
        "select position, event_id, subject, entity, headers, body from outbox where published_at is null"
        " order by position limit $1",
        WINDOW,
    )
    return [
        Waiting(row["position"], Outgoing(row["event_id"], row["subject"], row["entity"], row["headers"], row["body"]))
        for row in rows
    ]


async def _mark(connection: Connection, stored: Sequence[tuple[Waiting, PubAck]]) -> None:
    await connection.execute(
        "update outbox set published_at = now(), stream = acked.stream, sequence = acked.sequence"
        " from unnest($1::bigint[], $2::text[], $3::bigint[]) as acked (position, stream, sequence)"
        " where outbox.position = acked.position",
        [row.position for row, _ in stored],
        [ack.stream for _, ack in stored],
        [ack.seq for _, ack in stored],
    )


async def _lead(connection: Connection, service: str) -> bool:
    return bool(await connection.fetchval("select pg_try_advisory_lock(hashtext($1))", f"outbox:{service}"))


class Relay:
    """Publishes a service's outbox for as long as the service runs."""

    def __init__(self, service: str, pool: Pool, jetstream: JetStreamContext, server: Callable[[], str]) -> None:
        """`server` gives the id of the server process that the connection leads to."""
        self._service = service
        self._pool = pool
        self._jetstream = jetstream
        self._server = server
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Notify the relay that a transaction with events has committed in this process."""
        self._wake.set()

    async def run(self) -> None:
        """Relay until cancelled. Faults of the database or the bus are waited out."""
        pause = IDLE_SECONDS
        while True:
            try:
                async with leaves_a_standby(self._pool), self._pool.acquire() as connection:
                    if await _lead(connection, self._service):
                        pause = IDLE_SECONDS
                        await self._serve(connection)
            except Exception as error:
                if not isinstance(error, RelayStalled) and not is_transient(error):
                    raise
                log.warning("outbox_relay_waiting", service=self._service, reason=describe(error))
                pause = min(pause * 2, 5.0)
            await asyncio.sleep(pause)

    async def _serve(self, connection: Connection) -> None:
        checked, care_at, streams = "", 0.0, set[str]()
        while True:
            self._wake.clear()
            server, now = self._server(), time.monotonic()
            if server != checked or now >= care_at:
                await outbox_check.check(connection, self._jetstream, server)
                more = await retention.sweep(connection, self._service)
                checked, care_at = server, now + (IDLE_SECONDS if more else retention.SWEEP_SECONDS)
            rows = await _waiting(connection)
            metrics.OUTBOX_WAITING.labels(self._service).set(len(rows))
            while rows:
                window = distinct_entities(rows)
                stored, fault = await self._publish(window)
                for stream in {ack.stream for _, ack in stored} - streams:
                    await outbox_check.note(connection, stream, server)
                    streams.add(stream)
                await _mark(connection, stored)
                if fault is not None:
                    # nats-py raises many unrelated classes here; each of them is tried again.
                    raise RelayStalled(f"publishing to JetStream: {describe(fault)}") from fault
                rows = rows[len(window) :]
            # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with what it waits for,
            # and the relay would outlive its service.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._wake.wait()

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
