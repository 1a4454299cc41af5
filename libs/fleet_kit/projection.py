"""Follow facts from the stream's start without a durable: for state that is rebuilt whenever a process starts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import nats.errors
import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy

from fleet_events.message import Event
from fleet_events.topology import STREAM
from fleet_kit.cloudevents import Envelope, Stored, event_id, open_envelope
from fleet_kit.errors import Refused

__all__ = ["follow"]

log = structlog.get_logger()


async def follow(
    jetstream: JetStreamContext,
    subjects: str,
    events: Sequence[type[Event]],
    apply: Callable[[Event, Envelope], Awaitable[None]],
    caught_up: asyncio.Event,
    *,
    passed: Callable[[int], None] = lambda _: None,
) -> NoReturn:
    """Hand over every event of the given classes, in stream order, from the beginning and then as they come.

    Args:
        jetstream: connected as a user whose permissions let it follow `subjects`.
        subjects: one filter, for example lorafleet.v1.adapter.>.
        events: classes to hand over; others on these subjects are passed by.
        apply: must bear seeing an event again: after a lost connection the stream is read from its start.
        caught_up: set once everything that was in the stream at the start has been handed over.
        passed: is given the sequence of each message once it is applied or passed by.

    A broken event is logged and passed by: a projection must not stop at it, and its durable consumers
    make it a dead letter.
    """
    wanted = tuple(events)
    while True:
        try:
            await _read(jetstream, subjects, wanted, apply, caught_up, passed=passed)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            log.warning("projection waits for the bus", reason=repr(error))
        await asyncio.sleep(1)


async def _read(
    jetstream: JetStreamContext,
    subjects: str,
    events: tuple[type[Event], ...],
    apply: Callable[[Event, Envelope], Awaitable[None]],
    caught_up: asyncio.Event,
    *,
    passed: Callable[[int], None],
) -> None:
    # An explicit name makes the client ask under CONSUMER.CREATE.<stream>.<name>.<filter>, which the
    # permissions allow for this filter alone.
    config = ConsumerConfig(
        name=f"follow-{event_id()}", deliver_policy=DeliverPolicy.ALL, inactive_threshold=60, filter_subject=subjects
    )
    subscription = await jetstream.subscribe(subjects, stream=STREAM, config=config, ordered_consumer=True)
    try:
        info = await _pending(jetstream, subjects)
        if not info:
            caught_up.set()
        while True:
            try:
                message = await subscription.next_msg(timeout=30)
            except TimeoutError:
                continue
            try:
                event, envelope = open_envelope(message.subject, message.headers, message.data, Stored.of(message))
            except Refused as error:
                log.warning("projection passes a broken event by", subject=message.subject, reason=str(error))
            else:
                if isinstance(event, events):
                    await apply(event, envelope)
            passed(message.metadata.sequence.stream)
            if message.metadata.num_pending == 0:
                caught_up.set()
    finally:
        with contextlib.suppress(Exception):  # the consumer goes by itself when nobody listens
            await subscription.unsubscribe()


async def _pending(jetstream: JetStreamContext, subjects: str) -> int:
    """How many messages the stream holds on these subjects."""
    state = (await jetstream.stream_info(STREAM, subjects_filter=subjects)).state
    return sum((state.subjects or {}).values())
