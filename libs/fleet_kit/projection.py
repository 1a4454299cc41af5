"""Follow a stream without a durable: for state that is rebuilt whenever a process starts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NoReturn

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from fleet_events.message import Event
from fleet_events.topology import STREAM
from fleet_kit.cloudevents import Envelope, Stored, event_id, open_envelope
from fleet_kit.errors import Refused
from fleet_kit.faults import describe

__all__ = ["follow"]

log = structlog.get_logger()

HEARTBEAT = 0.5
"""Seconds between two signs of life of the consumer while it has nothing to deliver."""
SILENCE = 3 * HEARTBEAT
"""Seconds without one after which the consumer counts as lost: its server, its stream or the connection is gone."""
LOOK_EVERY = 0.1
RETRY = 0.25
REQUEST = 2.0
"""Seconds for one request. One that a stopped server got is answered when it resumes; one that it never got is not."""


class _Lost(Exception):
    """What the consumer sent is not all there is, or it sends nothing any more."""


async def follow(
    jetstream: JetStreamContext,
    subjects: str,
    events: Sequence[type[Event]],
    apply: Callable[[Event, Envelope], Awaitable[None]],
    caught_up: asyncio.Event,
    *,
    passed: Callable[[int], None] = lambda _: None,
    stream: str = STREAM,
    since: Callable[[], datetime] | None = None,
) -> NoReturn:
    """Hand over every event of the given classes, in stream order, from the beginning and then as they come.

    After a lost connection, a server that stood still and a stream that was recreated the stream is read from its start
    under a new consumer, within two seconds of the server's return. Not from where it stopped: the server may have lost
    its newest messages, and others may have their sequences now.

    Args:
        jetstream: connected as a user whose permissions let it follow `subjects`.
        subjects: one filter, see `fleet_events.topology.followed_by`.
        events: classes to hand over; others on these subjects are passed by.
        apply: must bear seeing an event again.
        caught_up: set once everything that was in the stream at the start has been handed over.
        passed: is given the sequence of each message once it is applied or passed by.
        stream: whose events.
        since: gives the time from which the stream is read, each time that it is; None reads it from its start.

    A broken event is logged and passed by: a projection must not stop at it, and its durable consumers
    make it a dead letter.
    """
    wanted = tuple(events)
    created: datetime | None = None
    logged = ""
    while True:
        try:
            while not _client(jetstream).is_connected:  # noqa: ASYNC110  # the client has no event for it
                await asyncio.sleep(RETRY / 5)
            async with asyncio.timeout(REQUEST):
                found = (await jetstream.stream_info(stream)).created
            if created not in (None, found):
                log.warning("projection_restarted", stream=stream, created=str(found))
            created, logged = found, ""
            begin = since() if since else None
            await _read(jetstream, subjects, wanted, apply, caught_up, stream=stream, passed=passed, begin=begin)
        except (OSError, TimeoutError, nats.errors.Error, _Lost) as error:
            reason = describe(error)
            if reason != logged:
                log.warning("projection_waiting_for_bus", reason=reason)
            logged = reason
        await asyncio.sleep(RETRY)


def _client(jetstream: JetStreamContext) -> Client:
    return jetstream._nc  # nats-py has no public way from one to the other


async def _read(
    jetstream: JetStreamContext,
    subjects: str,
    events: tuple[type[Event], ...],
    apply: Callable[[Event, Envelope], Awaitable[None]],
    caught_up: asyncio.Event,
    *,
    stream: str,
    passed: Callable[[int], None],
    begin: datetime | None,
) -> NoReturn:
    client = _client(jetstream)
    inbox = client.new_inbox()
    # Not nats-py's ordered consumer: where its stream was recreated it continues after the sequence of the old one.
    subscription = await client.subscribe(inbox)
    try:
        reconnects = client.stats["reconnects"]
        async with asyncio.timeout(REQUEST):
            # An explicit name makes the client ask under CONSUMER.CREATE.<stream>.<name>.<filter>, which the
            # permissions allow for this filter alone.
            made = await jetstream.add_consumer(
                stream,
                ConsumerConfig(
                    name=f"follow-{event_id()}",
                    deliver_policy=DeliverPolicy.BY_START_TIME if begin else DeliverPolicy.ALL,
                    opt_start_time=begin,
                    deliver_subject=inbox,
                    ack_policy=AckPolicy.NONE,
                    filter_subject=subjects,
                    idle_heartbeat=HEARTBEAT,
                    flow_control=True,
                    inactive_threshold=5,
                    num_replicas=1,
                    mem_storage=True,
                ),
            )
        if not made.num_pending and not (made.delivered and made.delivered.consumer_seq):
            caught_up.set()
        delivered, last_sign = 0, asyncio.get_running_loop().time()
        while True:
            if client.stats["reconnects"] != reconnects:
                raise _Lost("the connection was lost")
            try:
                message = await subscription.next_msg(timeout=LOOK_EVERY)
            except TimeoutError:
                if asyncio.get_running_loop().time() > last_sign + SILENCE:
                    raise _Lost(f"the consumer was silent for {SILENCE:g} s") from None
                continue
            last_sign = asyncio.get_running_loop().time()
            if (message.headers or {}).get("Status") == "100":
                await _sign_of_life(client, message, delivered)
                continue
            if message.metadata.sequence.consumer != delivered + 1:
                raise _Lost(f"message {delivered + 1} of the consumer is missing")
            delivered += 1
            await _hand_over(message, events, apply)
            passed(message.metadata.sequence.stream)
            if message.metadata.num_pending == 0:
                caught_up.set()
    finally:
        with contextlib.suppress(Exception):  # the consumer expires by itself without a subscriber
            await subscription.unsubscribe()


async def _sign_of_life(client: Client, message: Msg, delivered: int) -> None:
    """Answer the server's flow control before it sends more; raise `_Lost` where it has sent more than arrived."""
    headers = message.headers or {}
    if answer := message.reply or headers.get("Nats-Consumer-Stalled"):
        await client.publish(answer)
    if int(headers.get("Nats-Last-Consumer", delivered)) > delivered:
        raise _Lost(f"message {delivered + 1} of the consumer is missing")


async def _hand_over(
    message: Msg, events: tuple[type[Event], ...], apply: Callable[[Event, Envelope], Awaitable[None]]
) -> None:
    try:
        event, envelope = open_envelope(message.subject, message.headers, message.data, *Stored.of(message))
    except Refused as error:
        log.warning("projection_skipped_event", subject=message.subject, reason=str(error))
        return
    if isinstance(event, events):
        await apply(event, envelope)
