"""Streams, durables and key-value buckets, made from the topology table; drift is reported, never kept silently."""

from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from fleet_events.topology import (
    BUCKETS,
    DEAD_STREAM,
    DEAD_SUBJECTS,
    PROBE_STREAM,
    PROBE_SUBJECTS,
    STREAMS,
    TOPOLOGY,
    Bucket,
    Consumer,
    Row,
    Stream,
    durable_name,
    rows_of,
)
from fleet_kit.stream_split import split_streams

__all__ = ["Drift", "provision"]

DEAD_BYTES = 1024**3
"""Room for dead letters. They stay until they are replayed or deleted."""


@dataclass(frozen=True)
class Drift:
    """Where the server differs from the table."""

    name: str
    setting: str
    found: object
    wanted: object

    def __str__(self) -> str:
        return f"{self.name}: {self.setting} is {self.found!r}, the topology says {self.wanted!r}"


def stream_config(stream: Stream, replicas: int = 1) -> StreamConfig:
    """A stream of events."""
    return StreamConfig(
        name=stream.name,
        subjects=[row.subject for row in rows_of(stream)],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        # A full stream refuses new events instead of dropping old ones: consumers may still need them.
        discard=DiscardPolicy.NEW,
        max_bytes=stream.max_bytes,
        max_age=stream.max_age.total_seconds() if stream.max_age else None,
        duplicate_window=120.0,
        allow_direct=True,
        allow_msg_ttl=True,
        num_replicas=replicas,
    )


def dead_config(replicas: int = 1) -> StreamConfig:
    """The stream of dead letters. When it is full, the event stays with its consumer instead, and is tried again."""
    return StreamConfig(
        name=DEAD_STREAM,
        subjects=[DEAD_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_bytes=DEAD_BYTES,
        duplicate_window=120.0,
        allow_direct=True,
        num_replicas=replicas,
    )


def probe_config(replicas: int = 1) -> StreamConfig:
    """The stream of readiness probes: on disk, as what it probes is whether the server can write there."""
    return StreamConfig(
        name=PROBE_STREAM,
        subjects=[PROBE_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_msgs_per_subject=1,
        max_bytes=1024**2,
        max_age=60.0,
        duplicate_window=60.0,
        num_replicas=replicas,
    )


def bucket_config(bucket: Bucket, replicas: int = 1) -> StreamConfig:
    """The stream of a bucket, as NATS clients make it (ADR-8); in memory, as its values live for seconds."""
    return StreamConfig(
        name=bucket.stream,
        subjects=[bucket.subjects],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.MEMORY,
        discard=DiscardPolicy.NEW,
        max_msgs_per_subject=1,
        max_bytes=16 * 1024**2,
        max_age=bucket.ttl.total_seconds(),
        duplicate_window=bucket.ttl.total_seconds(),
        allow_direct=True,
        allow_rollup_hdrs=True,
        deny_delete=True,
        num_replicas=replicas,
    )


def consumer_config(consumer: Consumer, row: Row) -> ConsumerConfig:
    """A durable as the table wants it. Deliveries are not limited here: `settle` decides when to give up."""
    return ConsumerConfig(
        name=durable_name(consumer, row),
        durable_name=durable_name(consumer, row),
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=consumer.ack_wait.total_seconds(),
        max_deliver=-1,
        max_ack_pending=consumer.max_ack_pending,
        filter_subject=row.subject,
    )


async def provision(jetstream: JetStreamContext, *, replicas: int = 1, repair: bool = True) -> list[Drift]:
    """Make what is missing and bring what differs back to the table.

    Args:
        jetstream: connected as a user that may manage streams.
        replicas: copies of each stream; a production cluster wants 3.
        repair: False only looks: what is missing is drift too, and nothing is changed.

    Returns:
        What differed from the table.
    """
    drift: list[Drift] = []
    buckets = (bucket_config(bucket, replicas) for bucket in BUCKETS)
    streams = [stream_config(stream, replicas) for stream in STREAMS]
    if repair:
        await split_streams(jetstream, streams)
    for config in (*streams, dead_config(replicas), probe_config(replicas), *buckets):
        drift += await _stream(jetstream, config, repair=repair)
    for row in TOPOLOGY:
        for consumer in row.heard_by:
            wanted = consumer_config(consumer, row)
            drift += await _consumer(jetstream, row.stream.name, wanted, repair=repair)
    return drift


async def _stream(jetstream: JetStreamContext, wanted: StreamConfig, *, repair: bool) -> list[Drift]:
    name = str(wanted.name)
    try:
        found = (await jetstream.stream_info(name)).config
    except NotFoundError:
        if repair:
            await jetstream.add_stream(wanted)
            return []
        return [Drift(name, "stream", None, "present")]
    limits = ("max_bytes", "max_age", "max_msgs_per_subject", "duplicate_window", "num_replicas")
    drift = _differences(name, found, wanted, ("subjects", "retention", "discard", "allow_msg_ttl", *limits))
    if drift and repair:
        await jetstream.update_stream(wanted)
    return drift


async def _consumer(jetstream: JetStreamContext, stream: str, wanted: ConsumerConfig, *, repair: bool) -> list[Drift]:
    name = str(wanted.durable_name)
    try:
        found = (await jetstream.consumer_info(stream, name)).config
    except NotFoundError:
        if repair:
            await jetstream.add_consumer(stream, wanted)
            return []
        return [Drift(name, "consumer", None, "present")]
    # Not the deliver policy: it says where a durable began, and one whose stream was split began in the middle.
    settings = ("ack_policy", "ack_wait", "max_deliver", "max_ack_pending", "filter_subject")
    drift = _differences(name, found, wanted, settings)
    if drift and repair:
        await jetstream.add_consumer(stream, wanted)
    return drift


def _differences(name: str, found: object, wanted: object, settings: tuple[str, ...]) -> list[Drift]:
    pairs = ((setting, getattr(found, setting), getattr(wanted, setting)) for setting in settings)
    return [Drift(name, setting, here, there) for setting, here, there in pairs if (here or None) != (there or None)]
