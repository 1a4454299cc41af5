"""The bus from outside: connect, follow the streams of facts, publish one event with its headers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from fleet_events import Event, v1
from fleet_events.topology import STREAMS, TOPOLOGY, row_of_subject, rows_of
from fleet_kit.cloudevents import Outgoing, Stored, open_envelope, seal
from fleet_kit.errors import Refused
from fleet_kit.nats_auth import inbox_prefix
from fleet_kit.tasks import end
from lorafleet.errors import Unreachable
from lorafleet.home import FleetHome

EVENTS: Mapping[str, type[Event]] = {row.event.__name__: row.event for row in TOPOLOGY}


@asynccontextmanager
async def connect(home: FleetHome, user: str = "admin") -> AsyncIterator[Client]:
    """A connection to the fleet's NATS with the nkey of that user; raises `Unreachable`."""
    url = home.nats_url
    seed = home.nats_seed(user)
    last: list[Exception] = []

    async def remember(error: Exception) -> None:
        """Keeps the reason why connecting fails; once connected, errors are raised where they happen."""
        last.append(error)

    try:
        # With reconnects allowed nats-py never gives up, so the first connection has its own timeout.
        async with asyncio.timeout(10):
            await _knock(url)
            client = await nats.connect(
                url.split(","),
                name="lorafleet",
                tls=home.trust,
                nkeys_seed=str(seed) if seed else None,
                inbox_prefix=inbox_prefix(user).encode() if seed else b"_INBOX",
                connect_timeout=5,
                max_reconnect_attempts=-1,
                error_cb=remember,
            )
    except (NatsError, OSError, TimeoutError) as error:
        cause = last[-1] if last else error
        raise Unreachable("NATS", url, str(cause) or type(cause).__name__) from error
    try:
        yield client
    finally:
        await client.close()


async def _knock(urls: str) -> None:
    """Raise OSError at once where nothing listens at any of the addresses."""
    fault: OSError | None = None
    for url in urls.split(","):
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        try:
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
        except OSError as error:
            fault = error
        else:
            writer.close()
            return
    if fault is not None:
        raise fault


@dataclass(frozen=True)
class Received:
    """One message of a stream. `event` is None where the body breaks its contract; `fault` then has the reason."""

    stream: str
    sequence: int
    subject: str
    at: datetime
    headers: Mapping[str, str]
    body: bytes
    event: Event | None
    fault: str = ""

    @property
    def type(self) -> str:
        """Short name of the event's type."""
        row = row_of_subject(self.subject)
        return row.event.__name__ if row else "?"


Position = Mapping[str, int]
"""Sequence of the newest message that was seen, by stream."""
RETRY = 1.0
LOOK_EVERY = 2.0
"""Seconds of silence after which a follower checks that its consumer still exists."""
EVENT_STREAMS = tuple(stream.name for stream in STREAMS)


async def position(client: Client, streams: Sequence[str] = EVENT_STREAMS) -> Position:
    """Where each stream ends now."""
    js = client.jetstream()
    return {name: (await js.stream_info(name)).state.last_seq for name in streams}


async def follow(
    client: Client,
    *,
    after: Position | None = None,
    subjects: Sequence[str] = (),
    streams: Sequence[str] = EVENT_STREAMS,
    wait: bool = True,
) -> AsyncIterator[Received]:
    """Every message of the streams after a position (None: only new ones; a stream it lacks: from its start).

    In order within a stream; what is there at the beginning is merged by its time over all streams. Then waits for
    more for ever, or without `wait` ends. Nothing durable is left behind. A consumer lost with its server is created
    again where it stopped, so that an outage skips nothing, and a recreated stream is read from its start.

    Raises APIError where a stream is not there at the beginning.
    """
    reached = dict(await position(client, streams) if after is None else after)
    wanted = [name for name in streams if not subjects or set(subjects) & _SUBJECTS.get(name, set(subjects))]
    if after is not None:
        async for received in _merged([_past(client, reached.get(name, 0), subjects, name) for name in wanted]):
            reached[received.stream] = received.sequence
            yield received
    if not wait:
        return
    queue: asyncio.Queue[Received | Exception] = asyncio.Queue(256)
    readers = [_follow(client, reached.get(name, 0), subjects, name) for name in wanted]
    tasks = [asyncio.create_task(_into(queue, reader)) for reader in readers]
    try:
        while True:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        await end(*tasks)


async def _merged(readers: Sequence[AsyncIterator[Received]]) -> AsyncIterator[Received]:
    """The messages of all readers by their time, one of each in memory."""
    heads = [(one, reader) for reader in readers if (one := await anext(reader, None)) is not None]
    while heads:
        index = min(range(len(heads)), key=lambda at: heads[at][0].at)
        oldest, reader = heads[index]
        yield oldest
        following = await anext(reader, None)
        heads[index : index + 1] = [(following, reader)] if following is not None else []


_SUBJECTS = {stream.name: {row.subject for row in rows_of(stream)} for stream in STREAMS}


async def _into(queue: asyncio.Queue[Received | Exception], reader: AsyncIterator[Received]) -> None:
    try:
        async for received in reader:
            await queue.put(received)
    except Exception as error:
        # Raised where the queue is read: a reader that ended silently would look like a quiet stream.
        await queue.put(error)


async def _past(client: Client, position: int, subjects: Sequence[str], stream: str) -> AsyncIterator[Received]:
    """What a stream holds after a position now."""
    async for received in _read(client.jetstream(), position + 1, subjects, stream, wait=False):
        yield received


async def _follow(client: Client, position: int, subjects: Sequence[str], stream: str) -> AsyncIterator[Received]:
    js = client.jetstream()
    created = None
    while True:
        try:
            info = await js.stream_info(stream)
            if created not in (None, info.created):
                position = 0  # the stream was recreated: none of its messages has been shown
            # A server that lost its newest messages gives their sequences to others.
            created, position = info.created, min(position, info.state.last_seq)
            async for received in _read(js, position + 1, subjects, stream, wait=True):
                position = received.sequence
                yield received
        except (NatsError, APIError, OSError) as error:
            if client.is_closed:
                raise Unreachable("NATS", "its address", str(error)) from error
            await asyncio.sleep(RETRY)


async def _read(
    js: JetStreamContext, start: int, subjects: Sequence[str], stream: str, *, wait: bool
) -> AsyncIterator[Received]:
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=start,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=60.0,
        mem_storage=True,
        filter_subjects=[one for one in subjects if one in _SUBJECTS.get(stream, set(subjects))] or None,
        name=f"cli-{uuid.uuid4().hex}",
    )
    made = await js.add_consumer(stream, config)
    if not wait and not made.num_pending:
        return
    subscription = await js.pull_subscribe_bind(stream=stream, name=made.name)
    try:
        while True:
            try:
                messages = await subscription.fetch(64, timeout=LOOK_EVERY)
            except TimeoutError:
                # Quiet stream or lost consumer: the server's answer about the consumer distinguishes them.
                await js.consumer_info(stream, made.name)
                continue
            for message in messages:
                yield _received(message, stream)
                if not wait and not message.metadata.num_pending:
                    return
    finally:
        with suppress(NatsError):
            await subscription.unsubscribe()


def _received(message: Msg, stream: str) -> Received:
    sequence = message.metadata.sequence.stream
    event, fault = None, ""
    try:
        event, _ = open_envelope(message.subject, message.headers, message.data, *Stored.of(message))
    except Refused as error:
        fault = " ".join(str(error).split())
    at = message.metadata.timestamp
    return Received(
        stream, sequence, message.subject, at.astimezone(UTC), dict(message.headers or {}), message.data, event, fault
    )


def outgoing(event: Event, entity: str, source: str = "upstream") -> Outgoing:
    """The wire form of an event; `entity` is what it is about (ce-subject)."""
    return seal(event, service=source, entity=entity, trace={})


def entity_of(event: Event) -> str:
    """What an upstream event is about: its own id where it has one, else its domain."""
    match event:
        case v1.TrainingRequested():
            return event.job_id or event.domain
        case v1.EvaluationRequested():
            return event.adapter_id
        case v1.FeedbackRecorded():
            return event.generation_id
        case v1.SampleRecorded() | v1.PreferenceRecorded():
            return event.domain
    return ""


async def publish(client: Client, message: Outgoing) -> int:
    """Publish and wait for JetStream's PubAck; returns the stream sequence."""
    acknowledged = await client.jetstream().publish(
        message.subject, message.body, headers=dict(message.headers), timeout=10
    )
    return acknowledged.seq
