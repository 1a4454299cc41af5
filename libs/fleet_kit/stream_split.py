"""Divides a stream that held every event, as earlier releases made it, into the streams of the topology.

The order of the steps makes sure that no acknowledged event is lost and that each durable continues where it was
(docs/decisions/0007-streams-with-their-own-room.md). Every step may be done twice: an interrupted division continues
with the next `lorafleet provision`.
"""

import asyncio
import time

import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig, StreamSource, SubjectTransform
from nats.js.errors import NotFoundError

from fleet_events.topology import FACTS, STREAMS, Row, Stream, durable_name, rows_of

__all__ = ["SplitStalled", "split_streams"]

log = structlog.get_logger()

ORIGIN = "Nats-Stream-Source"
"""Header of a copied message: stream, sequence there, and more."""
COPY_SECONDS = 60.0
"""Without a further copied message for so long, copying has stalled."""
SHORTEST_WINDOW = 0.1
"""While messages are copied: events of days ago arrive within seconds, and none of them is a repetition."""


class SplitStalled(Exception):
    """The server copies no more messages into the new stream; everything is still in the old one."""


async def split_streams(jetstream: JetStreamContext, wanted: list[StreamConfig]) -> None:
    """Move what belongs to other streams out of the stream of facts; returns at once where there is nothing to move.

    Args:
        jetstream: connected as a user that may manage streams.
        wanted: configuration of each stream of `STREAMS`, in that order.

    Raises:
        SplitStalled: the server does not copy; run it again.
    """
    try:
        old = (await jetstream.stream_info(FACTS.name)).config
    except NotFoundError:
        return
    facts = wanted[STREAMS.index(FACTS)]
    others = [(stream, config) for stream, config in zip(STREAMS, wanted, strict=True) if stream is not FACTS]
    copying = [stream for stream, _ in others if await _copies(jetstream, stream)]
    if set(old.subjects or ()) == set(facts.subjects or ()) and not copying and not await _left(jetstream, others):
        return
    log.info("stream_split_begun", stream=FACTS.name, into=[stream.name for stream, _ in others])
    # Room first: what is reserved by the old size leaves none for the new streams.
    await jetstream.update_stream(old.evolve(max_bytes=facts.max_bytes))
    for stream, config in others:
        if not await _exists(jetstream, stream.name):
            await jetstream.add_stream(_copy_of(config))
    # From here until `_open` an event of these subjects is not acknowledged: its publisher keeps it and tries again.
    await jetstream.update_stream(facts)
    for stream, config in others:
        if await _copies(jetstream, stream):
            await _wait_for_copies(jetstream, stream)
            await jetstream.update_stream(config)
        for row in rows_of(stream):
            await _move_durables(jetstream, row)
        for row in rows_of(stream):
            await jetstream.purge_stream(FACTS.name, subject=row.subject)


def _copy_of(config: StreamConfig) -> StreamConfig:
    """The stream while it is filled: it takes messages from the stream of facts alone."""
    # One source for all subjects, so that the copies are in the order of their originals.
    transforms = [SubjectTransform(src=subject, dest=subject) for subject in config.subjects or ()]
    source = StreamSource(name=FACTS.name, subject_transforms=transforms)
    return config.evolve(subjects=None, sources=[source], duplicate_window=SHORTEST_WINDOW)


async def _wait_for_copies(jetstream: JetStreamContext, stream: Stream) -> None:
    newest = max([await _last_sequence(jetstream, row) for row in rows_of(stream)])
    copied, since = -1, time.monotonic()
    while True:
        last = (await jetstream.stream_info(stream.name)).state.last_seq
        reached = await _origin(jetstream, stream, last) if last else 0
        if reached >= newest:
            return
        if last != copied:
            copied, since = last, time.monotonic()
        if time.monotonic() > since + COPY_SECONDS:
            raise SplitStalled(
                f"{stream.name} has {last} messages, up to message {reached} of {FACTS.name} where {newest} is the "
                "newest to copy, and gets no more; look at the log of nats-server and run `lorafleet provision` again"
            )
        await asyncio.sleep(0.2)


async def _move_durables(jetstream: JetStreamContext, row: Row) -> None:
    """Make each durable of the row in its new stream, behind the last message that it had handled in the old one."""
    for consumer in row.consumed_by:
        name = durable_name(consumer, row)
        try:
            before = await jetstream.consumer_info(FACTS.name, name)
        except NotFoundError:
            continue
        try:
            await jetstream.consumer_info(row.stream.name, name)
        except NotFoundError:
            handled = before.ack_floor.stream_seq if before.ack_floor else 0
            start = await _first_after(jetstream, row.stream, handled)
            moved = ConsumerConfig(
                name=name,
                durable_name=name,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=start,
                ack_policy=before.config.ack_policy,
                ack_wait=before.config.ack_wait,
                max_deliver=before.config.max_deliver,
                max_ack_pending=before.config.max_ack_pending,
                filter_subject=row.subject,
            )
            await jetstream.add_consumer(row.stream.name, moved)
        await jetstream.delete_consumer(FACTS.name, name)


async def _first_after(jetstream: JetStreamContext, stream: Stream, handled: int) -> int:
    """Sequence of the first message whose original came after `handled`; one past the newest if there is none."""
    state = (await jetstream.stream_info(stream.name)).state
    low, high = max(state.first_seq, 1), state.last_seq + 1
    while low < high:
        middle = (low + high) // 2
        if await _origin(jetstream, stream, middle) > handled:
            high = middle
        else:
            low = middle + 1
    return low


async def _origin(jetstream: JetStreamContext, stream: Stream, sequence: int) -> int:
    """Sequence in the old stream of the first message from `sequence` on; of one that is no copy, beyond all others."""
    try:
        message = await jetstream.get_msg(stream.name, sequence, subject=">", next=True)
    except NotFoundError:
        return 0
    found = (message.headers or {}).get(ORIGIN, "").split()
    return int(found[1]) if len(found) > 1 else 2**63


async def _last_sequence(jetstream: JetStreamContext, row: Row) -> int:
    try:
        return (await jetstream.get_last_msg(FACTS.name, row.subject)).seq or 0
    except NotFoundError:
        return 0


async def _left(jetstream: JetStreamContext, others: list[tuple[Stream, StreamConfig]]) -> bool:
    """Whether messages of other streams still lie in the stream of facts."""
    rows = [row for stream, _ in others for row in rows_of(stream)]
    return any([await _last_sequence(jetstream, row) for row in rows])


async def _exists(jetstream: JetStreamContext, name: str) -> bool:
    try:
        await jetstream.stream_info(name)
    except NotFoundError:
        return False
    return True


async def _copies(jetstream: JetStreamContext, stream: Stream) -> bool:
    """Whether the stream is still being filled from the old one."""
    try:
        return bool((await jetstream.stream_info(stream.name)).config.sources)
    except NotFoundError:
        return False
