"""The way of one delivery: open the envelope → `_once` or `_long` → settle."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from faststream.nats.message import NatsMessage
from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_kit import inbox, lease, metrics
from fleet_kit.cloudevents import Envelope, open_envelope, read_envelope
from fleet_kit.db import Pool
from fleet_kit.errors import LeaseLost, NotYet, Unreadable
from fleet_kit.handlers import Binding, Unread
from fleet_kit.settle import settle
from fleet_kit.telemetry import span
from fleet_kit.transaction import Transaction
from fleet_kit.work import Work

__all__ = ["Begin", "Desk"]

log = structlog.get_logger()

Begin = Callable[[Envelope | None], AbstractAsyncContextManager[Transaction]]
"""Opens a transaction, with the event that causes it."""


@dataclass
class Desk:
    """Handles the deliveries of one process."""

    service: object
    """What the handlers get as their last argument."""
    begin: Begin
    pool: Pool
    jetstream: JetStreamContext
    holder: str
    """Name of this process in leases."""
    lease: timedelta
    running: set[asyncio.Future[None]] = field(default_factory=set)
    """Long work under way."""

    async def deliver(self, message: NatsMessage, binding: Binding) -> None:
        """Handle one message and answer it; raises only cancellation."""
        raw = message.raw_message
        started = time.perf_counter()

        async def handle() -> str:
            place = raw.subject, raw.headers, raw.data, raw.metadata.sequence.stream
            try:
                event, envelope = open_envelope(*place)
            except Unreadable as broken:
                if binding.unreadable is None:
                    raise
                return await self._unread(raw.data, broken, read_envelope(*place), binding, binding.unreadable)
            bound = structlog.contextvars.bound_contextvars(event_id=envelope.id, consumer=binding.durable)
            with span(f"handle {type(event).__name__}", envelope.headers), bound:
                if binding.lease is None:
                    return await self._once(event, envelope, binding)
                name = binding.lease(event, envelope)
                return await self._long(event, envelope, message, binding, name)

        await settle(raw, binding.durable, self.jetstream, handle)
        metrics.EVENT_SECONDS.labels(binding.durable).observe(time.perf_counter() - started)

    async def give_up(self) -> None:
        """Stop all long work; its messages go to other workers at once."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    async def _once(self, event: Event, envelope: Envelope, binding: Binding) -> str:
        async with self.begin(envelope) as tx:
            if not await inbox.claim(tx.connection, binding.durable, envelope.id):
                return "duplicate"
            await binding.function(event, tx, self.service)
        return "done"

    async def _unread(
        self, body: bytes, broken: Unreadable, envelope: Envelope, binding: Binding, handle: Unread
    ) -> str:
        async with self.begin(envelope) as tx:
            if not await inbox.claim(tx.connection, binding.durable, envelope.id):
                return "duplicate"
            await handle(body, broken, tx, self.service)
        return "done"

    async def _long(self, event: Event, envelope: Envelope, message: NatsMessage, binding: Binding, name: str) -> str:
        async with self.pool.acquire() as connection:
            if await inbox.seen(connection, binding.durable, envelope.id):
                return "duplicate"
            token = await lease.acquire(connection, name, self.holder, self.lease)
        if token is None:
            raise NotYet(f"{name} is being worked on", after=self.lease.total_seconds() / 3)
        work = Work(envelope, binding.durable, name, token, self.begin)
        running = asyncio.ensure_future(binding.function(event, work, self.service))
        self.running.add(running)
        running.add_done_callback(self.running.discard)
        beating = asyncio.create_task(self._beat(message, work, running))
        try:
            await running
        except asyncio.CancelledError:
            if work.lost.is_set():
                raise LeaseLost(f"{name} was taken over") from None
            raise
        finally:
            beating.cancel()
            running.cancel()
            with contextlib.suppress(Exception):  # the lease runs out by itself if the database is away
                async with self.pool.acquire(timeout=2) as connection:
                    await lease.release(connection, name, token)
        if not work.finished:
            raise RuntimeError(f"the handler of {binding.durable} returned without work.finish()")
        return "done"

    async def _beat(self, message: NatsMessage, work: Work, running: asyncio.Future[None]) -> None:
        """Keep the message and the lease while the work runs; stop the work when the lease is lost."""
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 4)
            try:
                await message.in_progress()
                async with self.pool.acquire(timeout=2) as connection:
                    held = await lease.renew(connection, work.lease, work.token, self.lease)
            except Exception as error:
                # Bus or database are away for a moment: the fence still protects what is written.
                log.warning("heartbeat not sent", lease=work.lease, reason=repr(error))
                continue
            if not held:
                work.lost.set()
                running.cancel()
                return
