"""The way of one delivery: count its start → open the envelope → `_once` or `_long` → settle.

First deliveries of short work go together where there are many, see `together`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from fleet_events.message import Event
from fleet_kit import attempts, inbox, lease, metrics, tasks
from fleet_kit.cloudevents import ONLY_FOR, Envelope, Stored, read_envelope, read_event
from fleet_kit.db import Pool, leaves_a_standby
from fleet_kit.dead_letter_writer import DeadLetterWriter
from fleet_kit.dead_letters import DeadLetter, event_headers
from fleet_kit.errors import LeaseLost, NotYet, Refused, Unreadable
from fleet_kit.faults import describe
from fleet_kit.handlers import Binding, Unread
from fleet_kit.isolation import Isolation
from fleet_kit.leased_task import LeasedTask
from fleet_kit.settle import Settlement
from fleet_kit.tracing import SpanKind, span
from fleet_kit.transaction import Transaction

__all__ = ["Begin", "Dispatcher", "addressed", "handling", "held_together"]

log = structlog.get_logger()

Begin = Callable[[Envelope | None], AbstractAsyncContextManager[Transaction]]
"""Opens a transaction, with the event that causes it."""

Keep = Callable[[], Awaitable[None]]
"""Tells the server that a message is still worked on."""

LONGEST_HOLD = 600.0
"""Seconds for which a short handler's message is held back from other workers; after that it counts as stuck."""


@dataclass
class Dispatcher:
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
    isolation: Isolation = field(default_factory=Isolation)
    """Of short work: an event that may have killed a process runs alone, so that no other is counted with it."""
    settlement: Settlement = field(init=False)

    def __post_init__(self) -> None:
        self.settlement = Settlement(DeadLetterWriter(self.jetstream))

    async def deliver(self, raw: Msg, binding: Binding) -> None:
        """Handle one message and answer it; raises only cancellation."""
        started = time.perf_counter()

        async def handle() -> str:
            if binding.lease is not None:
                async with leaves_a_standby(self.pool):
                    return await self._handle(raw, binding)
            with _held(raw, binding.consumer.ack_wait):
                async with leaves_a_standby(self.pool), self._start(raw, binding):
                    return await self._handle(raw, binding)

        await self.settlement.settle(raw, binding.durable, handle, alone=binding.lease is None)
        metrics.EVENT_SECONDS.labels(binding.durable).observe(time.perf_counter() - started)

    async def give_up(self) -> None:
        """Stop all long work; its messages go to other workers at once."""
        await tasks.end(*self.running)
        await self.settlement.writer.flush()

    async def _handle(self, raw: Msg, binding: Binding) -> str:
        if not addressed(raw, binding):
            return "duplicate"
        envelope, data = read_envelope(raw.subject, raw.headers, raw.data, *Stored.of(raw))
        try:
            event = read_event(envelope, data)
        except Unreadable as broken:
            if binding.unreadable is None:
                raise
            return await self._unread(data, broken, envelope, binding, binding.unreadable)
        with handling(event, envelope, raw.subject, binding):
            if binding.lease is None:
                return await self._once(event, envelope, binding)
            name = binding.lease(event, envelope)
            return await self._long(event, envelope, raw.in_progress, binding, name)

    async def replay(self, letter: DeadLetter, binding: Binding) -> str:
        """Handle what one of the binding's dead letters holds, here and now; returns the outcome.

        Raises:
            Refused: it cannot be handled as it is.
            NotYet: it cannot be handled now.
            Exception: whatever its handler raises.
        """
        envelope, data = read_envelope(letter.subject, event_headers(letter), letter.body, *letter.origin)
        event = read_event(envelope, data)
        async with leaves_a_standby(self.pool):
            with handling(event, envelope, letter.subject, binding):
                if binding.lease is not None:
                    name = binding.lease(event, envelope)
                    return await self._long(event, envelope, _no_message, binding, name)
                # Alone: what is handled beside an event that kills the process is counted as a start, too.
                async with self.isolation.alone():
                    return await self._once(event, envelope, binding)

    @asynccontextmanager
    async def _start(self, raw: Msg, binding: Binding) -> AsyncIterator[None]:
        """Count a start of short work; raises `Refused` when too many before it were never answered."""
        if raw.metadata.num_delivered == 1:
            async with self.isolation.shared():
                yield
            return
        message = f"{raw.metadata.sequence.stream}@{raw.metadata.timestamp.timestamp()}"
        async with self.pool.acquire(timeout=5) as connection:
            suspect = await attempts.suspect(connection, binding.durable, message, self.holder)
        # The start is counted once it is this event's turn: those that wait for it are not killed by themselves.
        async with self.isolation.alone() if suspect else self.isolation.shared():
            async with self.pool.acquire(timeout=5) as connection:
                unanswered = await attempts.begin(connection, binding.durable, message, self.holder)
            async with self._answered(binding.durable, message):
                starts = unanswered + 1 if suspect else 0  # the first delivery was not recorded
                if starts >= attempts.LIMIT:
                    raise Refused(attempts.given_up(starts))
                yield

    @asynccontextmanager
    async def _answered(self, consumer: str, message: str) -> AsyncIterator[None]:
        """Every way out of this is an answer, cancellation included."""
        try:
            yield
        finally:
            # If the database is unavailable the row stays; a start of this process again does not count it.
            with contextlib.suppress(Exception):
                async with self.pool.acquire(timeout=2) as connection:
                    await attempts.end(connection, consumer, message)

    async def _once(self, event: Event, envelope: Envelope, binding: Binding) -> str:
        async with self.begin(envelope) as tx:
            if not await inbox.claim(tx.connection, binding.durable, envelope):
                return "duplicate"
            await binding.function(event, tx, self.service)
        return "done"

    async def _unread(
        self, body: bytes, broken: Unreadable, envelope: Envelope, binding: Binding, handle: Unread
    ) -> str:
        async with self.begin(envelope) as tx:
            if not await inbox.claim(tx.connection, binding.durable, envelope):
                return "duplicate"
            await handle(body, broken, tx, self.service)
        return "done"

    async def _long(self, event: Event, envelope: Envelope, keep: Keep, binding: Binding, name: str) -> str:
        async with self.pool.acquire() as connection:
            if await inbox.seen(connection, binding.durable, envelope):
                return "duplicate"
            taken = await lease.acquire(connection, name, self.holder, self.lease)
        if taken is None:
            raise NotYet(f"{name} is being worked on", after=self.lease.total_seconds() / 3)
        work = LeasedTask(envelope, binding.durable, name, taken.token, self.begin, holder=self.holder, ttl=self.lease)
        running = asyncio.ensure_future(self._work(event, work, binding, taken.unanswered))
        self.running.add(running)
        running.add_done_callback(self.running.discard)
        beating = asyncio.create_task(self._beat(keep, work, running))
        try:
            await running
        except asyncio.CancelledError:
            if work.lost.is_set():
                await self._report_survival(work)
                raise LeaseLost(f"{' or '.join(work.leases)} was taken over") from None
            raise
        finally:
            beating.cancel()
            running.cancel()
            with contextlib.suppress(Exception):  # leases run out by themselves if the database is unavailable
                async with self.pool.acquire(timeout=2) as connection:
                    for held, token in work.leases.items():
                        await lease.release(connection, held, token)
        if not work.finished:
            raise RuntimeError(f"the handler of {binding.durable} returned without work.finish()")
        return "done"

    async def _work(self, event: Event, work: LeasedTask, binding: Binding, unanswered: int) -> None:
        if unanswered < attempts.LIMIT:
            return await binding.function(event, work, self.service)
        reason = attempts.given_up(unanswered)
        if binding.give_up is None:
            raise Refused(reason)
        log.error("long_work_given_up", consumer=binding.durable, lease=work.lease, reason=reason)
        return await binding.give_up(event, reason, work, self.service)

    async def _report_survival(self, work: LeasedTask) -> None:
        with contextlib.suppress(Exception):  # one start too many is counted if the database is unavailable
            async with self.pool.acquire(timeout=2) as connection:
                for name, token in work.leases.items():
                    await lease.survived(connection, name, token)

    async def _beat(self, keep: Keep, work: LeasedTask, running: asyncio.Future[None]) -> None:
        """Keep the message and the leases while the work runs; stop the work when one is lost."""
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 4)
            try:
                await keep()
                async with self.pool.acquire(timeout=2) as connection:
                    held = [
                        await lease.renew(connection, name, token, self.lease) for name, token in work.leases.items()
                    ]
            except Exception as error:
                # Bus or database are unavailable for a moment: the fence still protects what is written.
                log.warning("heartbeat_not_sent", lease=work.lease, reason=describe(error))
                continue
            if not all(held):
                work.lost.set()
                running.cancel()
                return


async def _no_message() -> None:
    """A dead letter stays where it is, without a sign of life."""


def addressed(raw: Msg, binding: Binding) -> bool:
    """Whether the message is for this durable: a replayed dead letter is for the one that gave it up."""
    return bool((raw.headers or {}).get(ONLY_FOR, binding.durable) == binding.durable)


@contextmanager
def handling(event: Event, envelope: Envelope, subject: str, binding: Binding) -> Iterator[None]:
    """The span and the log's context of an event's handler."""
    attributes = {
        "messaging.system": "nats",
        "messaging.destination.name": subject,
        "messaging.consumer.group.name": binding.durable,
        "messaging.message.id": envelope.id,
    }
    bound = structlog.contextvars.bound_contextvars(event_id=envelope.id, consumer=binding.durable)
    with span(f"handle {type(event).__name__}", envelope.headers, SpanKind.CONSUMER, attributes), bound:
        yield


@contextmanager
def _held(message: Msg, ack_wait: timedelta) -> Iterator[None]:
    """Keep a message from other workers while its short handler waits, for example for a lock of the database."""
    with held_together(lambda: (message,), ack_wait):
        yield


@contextmanager
def held_together(messages: Callable[[], Iterable[Msg]], ack_wait: timedelta) -> Iterator[None]:
    """Keep messages from other workers; `messages` gives those that are still unanswered."""
    holding: list[asyncio.Task[None]] = []

    def hold() -> None:
        holding.append(asyncio.create_task(_renew(messages, ack_wait.total_seconds() / 2)))

    # No task for the many that end at once.
    timer = asyncio.get_running_loop().call_later(ack_wait.total_seconds() / 2, hold)
    try:
        yield
    finally:
        timer.cancel()
        for task in holding:
            task.cancel()


async def _renew(messages: Callable[[], Iterable[Msg]], pause: float) -> None:
    for _ in range(int(LONGEST_HOLD / pause)):
        with contextlib.suppress(Exception):  # the bus is unavailable: the message comes again, the inbox knows it
            for message in messages():
                await message.in_progress()
        await asyncio.sleep(pause)
