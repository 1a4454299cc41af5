"""Many first deliveries of a durable in one transaction: inbox rows by one statement, effects in order, one commit.

What fails ends its transaction for the others too. So the events before it are handled once more, together; it is
handled alone, by the way of a single delivery, which decides what becomes of it; then those behind it, together.
Each effect is still committed with its inbox row, and a message is acknowledged after that commit alone.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from nats.aio.msg import Msg

from fleet_events.message import Event
from fleet_kit import inbox, metrics
from fleet_kit.cloudevents import Envelope, Stored, open_envelope
from fleet_kit.dead_letter_writer import later
from fleet_kit.delivery import Dispatcher, addressed, handling, held_together
from fleet_kit.errors import Refused
from fleet_kit.faults import describe, is_transient
from fleet_kit.handlers import Binding, Delivered
from fleet_kit.settle import backoff
from fleet_kit.tracing import SpanKind, span
from fleet_kit.transaction import Transaction

__all__ = ["Together"]

log = structlog.get_logger()

HOLD_SECONDS = 0.25
"""After which a transaction takes no further event: others may wait for the rows that it has locked."""


@dataclass(frozen=True)
class Opened:
    """A message whose event is readable."""

    message: Msg
    event: Event
    envelope: Envelope


class Failed(Exception):
    """A transaction of many events has failed; `at` is the index of the event whose handler did, where one did."""

    def __init__(self, at: int | None) -> None:
        super().__init__(at)
        self.at = at


@dataclass
class Together:
    """Handles what a durable delivers to one process, in the order of its arrival."""

    dispatcher: Dispatcher
    binding: Binding
    size: int = field(init=False)
    """How many events the next transaction takes at most: fewer after a failure, more after each success."""
    _open: dict[int, Msg] = field(default_factory=dict, init=False)
    """Messages that are neither answered nor handed to the dispatcher, which answers them, by sequence."""

    def __post_init__(self) -> None:
        self.size = self.most

    @property
    def most(self) -> int:
        """Events of one transaction; half of what may be unanswered, so that another replica has work too."""
        return max(1, self.binding.consumer.max_ack_pending // 2)

    async def deliver(self, messages: Sequence[Msg]) -> None:
        """Handle and answer messages; raises only cancellation, after which other workers get what is left."""
        self._open = {message.metadata.sequence.stream: message for message in messages}
        try:
            with held_together(self._unanswered, self.binding.consumer.ack_wait):
                # A start that was not answered is counted, which is the way of a single delivery.
                again = [message for message in messages if message.metadata.num_delivered > 1]
                await self._each(again)
                await self._in_order(message for message in messages if message.metadata.num_delivered == 1)
        except asyncio.CancelledError:
            for message in self._unanswered():
                await later(message, 0.1)
            raise

    def _unanswered(self) -> list[Msg]:
        return list(self._open.values())

    async def _each(self, messages: Sequence[Msg]) -> None:
        """Handle each alone, some of them at a time, those of one entity in their order."""
        turns = asyncio.Semaphore(self.binding.consumer.workers)
        lanes: dict[str, list[Msg]] = {}
        for message in sorted(messages, key=lambda one: one.metadata.sequence.stream):
            entity = (message.headers or {}).get("ce-subject") or str(message.metadata.sequence.stream)
            lanes.setdefault(entity, []).append(message)

        async def handle(lane: list[Msg]) -> None:
            for message in lane:
                async with turns:
                    await self._alone(message)

        if lanes:
            async with asyncio.TaskGroup() as group:
                for lane in lanes.values():
                    group.create_task(handle(lane))

    async def _alone(self, message: Msg) -> None:
        self._open.pop(message.metadata.sequence.stream, None)
        await self.dispatcher.deliver(message, self.binding)

    async def _refuse(self, message: Msg, reason: Refused) -> None:
        self._open.pop(message.metadata.sequence.stream, None)

        async def refused() -> str:
            raise reason

        await self.dispatcher.settlement.settle(message, self.binding.durable, refused)

    async def _in_order(self, messages: Iterable[Msg]) -> None:
        run: list[Opened] = []
        for message in messages:
            try:
                if not addressed(message, self.binding):
                    raise Refused("for another consumer")
                opened = open_envelope(message.subject, message.headers, message.data, *Stored.of(message))
            except Refused as error:
                if self.binding.unreadable is None and addressed(message, self.binding):
                    await self._refuse(message, error)  # it has no effect, so it need not wait for those before it
                    continue
                await self._run(run)
                await self._alone(message)  # which has its own answers to what cannot be read
                run = []
            else:
                run.append(Opened(message, *opened))
        await self._run(run)

    async def _run(self, events: list[Opened]) -> None:
        parts = [events] if events else []
        while parts:
            part = parts.pop()
            if len(part) > self.size:
                parts.append(part[self.size :])
                part = part[: self.size]
            if len(part) == 1:
                await self._alone(part[0].message)
                self.size = min(2 * self.size, self.most)
                continue
            try:
                handled = await self._transaction(part)
                self.size = min(2 * self.size, self.most)
                split = [part[handled:]]
            except Failed as failed:
                self.size = max(1, self.size // 4)
                at = failed.at
                middle = len(part) // 2
                split = [part[at + 1 :], [part[at]], part[:at]] if at is not None else [part[middle:], part[:middle]]
            parts += [rest for rest in split if rest]

    async def _transaction(self, events: Sequence[Opened]) -> int:
        """Handle events from the first on, and answer them; returns how many, which is all of them where there is time.

        Raises:
            Failed: none of them has an effect.
        """
        at: int | None = None
        outcomes: list[str] = []
        started = time.perf_counter()
        try:
            async with self.dispatcher.isolation.shared(), self.dispatcher.begin(None) as tx:
                claimed = await inbox.claim_all(tx.connection, self.binding.durable, [one.envelope for one in events])
                if self.binding.many is not None:
                    fresh = [_take(claimed, one) for one in events]
                    await self._handle_many([one for one, is_fresh in zip(events, fresh, strict=True) if is_fresh], tx)
                    outcomes = ["done" if is_fresh else "duplicate" for is_fresh in fresh]
                else:
                    for number, one in enumerate(events):
                        at = number
                        outcomes.append(await self._handle(one, tx) if _take(claimed, one) else "duplicate")
                        if time.perf_counter() - started > HOLD_SECONDS:
                            break
                    at = None
                # Also where nothing is left: in a transaction that a handler's caught error has aborted it fails, and
                # the commit would not.
                await inbox.release(tx.connection, self.binding.durable, claimed)
        except Exception as error:
            if at is None and is_transient(error):
                await self._wait(events, error)
                return len(events)
            log.info("events_separated", consumer=self.binding.durable, events=len(events), reason=describe(error))
            raise Failed(at) from error
        share = (time.perf_counter() - started) / len(outcomes)
        for one, outcome in zip(events, outcomes, strict=False):
            await self._acknowledge(one.message, outcome, share)
        return len(outcomes)

    @property
    def _service(self) -> object:
        return self.dispatcher.service

    async def _handle(self, one: Opened, tx: Transaction) -> str:
        tx.cause = one.envelope
        with handling(one.event, one.envelope, one.message.subject, self.binding):
            await self.binding.function(one.event, tx, self._service)
        return "done"

    async def _handle_many(self, events: Sequence[Opened], tx: Transaction) -> None:
        if self.binding.many is None or not events:
            return
        attributes: dict[str, str | int] = {
            "messaging.system": "nats",
            "messaging.destination.name": self.binding.row.subject,
            "messaging.consumer.group.name": self.binding.durable,
            "messaging.batch.message_count": len(events),
        }
        with span(f"handle {self.binding.row.event.__name__}", {}, SpanKind.CONSUMER, attributes):
            await self.binding.many([Delivered(one.event, one.envelope) for one in events], tx, self._service)

    async def _acknowledge(self, message: Msg, outcome: str, seconds: float) -> None:
        self._open.pop(message.metadata.sequence.stream, None)
        try:
            await message.ack()
        except Exception as error:
            # nats-py raises several unrelated classes when it is disconnected. It comes again as a duplicate.
            log.warning("ack_not_sent", consumer=self.binding.durable, reason=describe(error))
        metrics.EVENTS_HANDLED.labels(self.binding.durable, outcome).inc()
        metrics.EVENT_SECONDS.labels(self.binding.durable).observe(seconds)

    async def _wait(self, events: Sequence[Opened], error: Exception) -> None:
        """The database is unavailable: all of them come again."""
        log.warning("transient_fault", consumer=self.binding.durable, reason=describe(error), events=len(events))
        for one in events:
            self._open.pop(one.message.metadata.sequence.stream, None)
            await later(one.message, backoff(1))
            metrics.EVENTS_HANDLED.labels(self.binding.durable, "retry").inc()


def _take(claimed: set[inbox.Key], one: Opened) -> bool:
    """Whether the event is among those that were claimed, and from now on not any more."""
    known = inbox.key(one.envelope) in claimed
    claimed.discard(inbox.key(one.envelope))
    return known
