"""Streams, durables and key-value buckets, made from the topology table; drift is reported, never kept silently."""

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

from fleet_events.buckets import BUCKETS, Bucket
from fleet_events.topology import (
    DATA,
    DEAD_STREAM,
    DEAD_SUBJECTS,
    PROBE_STREAM,
    PROBE_SUBJECTS,
    STREAMS,
    TOPOLOGY,
    Consumer,
    Row,
    Stream,
    durable_name,
    rows_of,
)
from fleet_kit.drift import Drift, compare, mend, missing
from fleet_kit.stream_split import split_streams

__all__ = ["provision"]

DEAD_BYTES = 1024**3
"""Room for dead letters. They stay until they are replayed or deleted."""
ATOMIC_SINCE = (2, 12)
"""Version of nats-server that stores batches atomically; an older one gets its events one by one."""


def stream_config(stream: Stream, replicas: int = 1, *, atomic: bool = True) -> StreamConfig:
    """A stream of events; `atomic` where the server has atomic batches."""
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
        # Not where outsiders publish: the server holds what a batch has sent until its end comes, or ten seconds long.
        allow_atomic=(atomic and stream is not DATA) or None,
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
        # How a service removes a letter that it has replayed, see `own_dead_letters`.
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,
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
    """The stream of a bucket, as NATS clients make it (ADR-8); in memory where its values live for seconds."""
    return StreamConfig(
        name=bucket.stream,
        subjects=[bucket.subjects],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE if bucket.kept else StorageType.MEMORY,
        discard=DiscardPolicy.OLD if bucket.kept and not bucket.lasting else DiscardPolicy.NEW,
        max_msgs_per_subject=1,
        max_bytes=bucket.max_bytes,
        max_age=bucket.ttl.total_seconds(),
        duplicate_window=min(bucket.ttl.total_seconds(), 120.0),
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
        What differed from the table, each mended or with what to do about it.
    """
    drift: list[Drift] = []
    buckets = (bucket_config(bucket, replicas) for bucket in BUCKETS)
    version = jetstream._nc.connected_server_version  # nats-py has no public way from JetStream to its client
    atomic = (version.major, version.minor) >= ATOMIC_SINCE
    streams = [stream_config(stream, replicas, atomic=atomic) for stream in STREAMS]
    if repair:
        await split_streams(jetstream, streams)
    for config in (*streams, dead_config(replicas), probe_config(replicas), *buckets):
        drift += await _stream(jetstream, config, repair=repair)
    for row in TOPOLOGY:
        for consumer in row.consumed_by:
            wanted = consumer_config(consumer, row)
            drift += await _consumer(jetstream, row.stream.name, wanted, repair=repair)
    return drift


async def _stream(jetstream: JetStreamContext, wanted: StreamConfig, *, repair: bool) -> list[Drift]:
    name = str(wanted.name)

    async def look() -> StreamConfig:
        return (await jetstream.stream_info(name)).config

    try:
        found = await look()
    except NotFoundError:
        if repair:
            await jetstream.add_stream(wanted)
            return []
        return [missing(name, "stream")]
    drift = compare(name, found, wanted)
    if drift and repair:
        how = f"restore it from a backup (`nats stream backup {name} FOLDER`, see Streams in docs/operations.md)"
        return await mend(drift, found, jetstream.update_stream, look, how)
    return drift


async def _consumer(jetstream: JetStreamContext, stream: str, wanted: ConsumerConfig, *, repair: bool) -> list[Drift]:
    name = str(wanted.durable_name)

    async def look() -> ConsumerConfig:
        config: ConsumerConfig = (await jetstream.consumer_info(stream, name)).config
        return config

    async def change(config: ConsumerConfig) -> None:
        await jetstream.add_consumer(stream, config)

    try:
        found = await look()
    except NotFoundError:
        if repair:
            await jetstream.add_consumer(stream, wanted)
            return []
        return [missing(name, "consumer")]
    drift = compare(name, found, wanted)
    if drift and repair:
        # It then reads the whole stream once more; the inbox knows what was handled.
        how = f"delete the durable (`nats consumer rm {stream} {name}`) and run `lorafleet provision`; no event is lost"
        return await mend(drift, found, change, look, how)
    return drift
