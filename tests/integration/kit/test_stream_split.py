"""A deployment whose one stream held every event is divided without losing, repeating or reordering what waits."""

import asyncio

import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, PubAck, StreamConfig
from nats.js.errors import APIError, NotFoundError

from fleet_events.topology import DATA, DEAD_STREAM, FACTS, SERVING, STREAMS, TOPOLOGY, durable_name, row_of
from fleet_events.v1 import AdapterActivated, GenerationCompleted, SampleRecorded
from fleet_kit.provision import consumer_config, provision
from tests.conftest import empty_bus

pytestmark = pytest.mark.integration

SAMPLE, ACTIVATED, ANSWER = row_of(SampleRecorded), row_of(AdapterActivated), row_of(GenerationCompleted)


@pytest.fixture
async def old_deployment(servers, jetstream: JetStreamContext):
    """Streams and durables as releases made them that had one stream of events."""
    for stream in (*(one.name for one in STREAMS), DEAD_STREAM):
        await jetstream.delete_stream(stream)
    await jetstream.add_stream(
        StreamConfig(
            name="LORAFLEET",
            subjects=["lorafleet.v1.>"],
            discard=DiscardPolicy.NEW,
            max_bytes=8 * 1024**3,
            duplicate_window=120.0,
            allow_direct=True,
            allow_msg_ttl=True,
        )
    )
    await jetstream.add_stream(
        StreamConfig(
            name=DEAD_STREAM,
            subjects=["lorafleet.dlq.>"],
            discard=DiscardPolicy.OLD,
            max_bytes=1024**3,
            max_age=30 * 86400.0,
            allow_direct=True,
        )
    )
    for row in TOPOLOGY:
        for consumer in row.consumed_by:
            await jetstream.add_consumer("LORAFLEET", consumer_config(consumer, row))
    for number in range(40):
        for row in (SAMPLE, ACTIVATED, ANSWER):
            await jetstream.publish(row.subject, b"%d" % number, headers={"Nats-Msg-Id": f"{row.subject}-{number}"})
    yield
    await empty_bus(servers)


async def take(jetstream: JetStreamContext, stream: str, durable: str, most: int) -> list[int]:
    """Handle up to so many messages, as a service does."""
    subscription = await jetstream.pull_subscribe_bind(durable, stream)
    found: list[int] = []
    while len(found) < most:
        try:
            messages = await subscription.fetch(most - len(found), timeout=1)
        except TimeoutError:
            break
        for message in messages:
            await message.ack_sync()
            found.append(int(message.data))
    await subscription.unsubscribe()
    return found


async def subjects(jetstream: JetStreamContext, stream: str) -> dict[str, int]:
    return (await jetstream.stream_info(stream, subjects_filter=">")).state.subjects or {}


async def test_each_stream_gets_its_events_and_each_durable_continues_where_it_was(
    old_deployment, jetstream: JetStreamContext
) -> None:
    durable = durable_name(SAMPLE.consumed_by[0], SAMPLE)
    assert await take(jetstream, "LORAFLEET", durable, 15) == list(range(15))
    await provision(jetstream)
    assert await provision(jetstream, repair=False) == []
    assert await subjects(jetstream, FACTS.name) == {ACTIVATED.subject: 40}
    assert await subjects(jetstream, DATA.name) == {SAMPLE.subject: 40}
    assert await subjects(jetstream, SERVING.name) == {ANSWER.subject: 40}
    await jetstream.publish(SAMPLE.subject, b"40")
    assert await take(jetstream, DATA.name, durable, 100) == list(range(15, 41))
    router = durable_name(ACTIVATED.consumed_by[0], ACTIVATED)
    assert await take(jetstream, FACTS.name, router, 100) == list(range(40))
    with pytest.raises(NotFoundError):
        await jetstream.consumer_info(FACTS.name, durable)


async def test_who_publishes_until_acknowledged_loses_nothing_while_the_stream_is_divided(
    old_deployment, jetstream: JetStreamContext
) -> None:
    acknowledged: list[int] = []

    async def publish() -> None:
        for number in range(40, 400):
            while True:
                try:
                    ack: PubAck = await jetstream.publish(
                        SAMPLE.subject, b"%d" % number, headers={"Nats-Msg-Id": str(number)}
                    )
                except Exception:  # nats-py raises several unrelated classes where nothing acknowledges
                    await asyncio.sleep(0.01)
                else:
                    acknowledged.append(ack.seq)
                    break

    publishing = asyncio.create_task(publish())
    while not acknowledged:
        await asyncio.sleep(0.001)
    await provision(jetstream)
    await publishing
    found = await take(jetstream, DATA.name, durable_name(SAMPLE.consumed_by[0], SAMPLE), 1000)
    assert sorted(set(found)) == list(range(400))
    assert found == sorted(found)


@pytest.mark.parametrize("stopped_at", range(1, 10))
async def test_an_interrupted_division_is_finished_by_the_next_provision(
    old_deployment, jetstream: JetStreamContext, stopped_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    changes = 0

    def interrupting(call):
        async def once(*args, **kwargs):
            nonlocal changes
            changes += 1
            if changes == stopped_at:
                raise Stopped
            return await call(*args, **kwargs)

        return once

    durable = durable_name(SAMPLE.consumed_by[0], SAMPLE)
    assert await take(jetstream, "LORAFLEET", durable, 15) == list(range(15))
    with monkeypatch.context() as patched:
        for name in ("update_stream", "add_stream", "add_consumer", "delete_consumer", "purge_stream"):
            patched.setattr(jetstream, name, interrupting(getattr(jetstream, name)))
        with pytest.raises(Stopped):
            await provision(jetstream)
    await provision(jetstream)
    assert await provision(jetstream, repair=False) == []
    assert await subjects(jetstream, FACTS.name) == {ACTIVATED.subject: 40}
    assert await take(jetstream, DATA.name, durable, 100) == list(range(15, 40))


async def test_a_full_stream_of_upstream_data_leaves_the_facts_their_room(servers, jetstream: JetStreamContext) -> None:
    config = (await jetstream.stream_info(DATA.name)).config
    await jetstream.update_stream(config.evolve(max_bytes=64 * 1024))
    upstream = await servers.connect_nats("upstream")
    try:
        with pytest.raises(APIError, match="maximum bytes exceeded"):
            for _ in range(100):
                await upstream.jetstream(timeout=5).publish(SAMPLE.subject, b"x" * 4096)
        assert (await jetstream.publish(ACTIVATED.subject, b"{}")).stream == FACTS.name
    finally:
        await upstream.close()
        await empty_bus(servers)
