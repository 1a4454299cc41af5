"""Before a stream is full, a metric and the log tell so; when dead letters have no room, none is dropped."""

import pytest
import structlog
from nats.js import JetStreamContext
from nats.js.errors import APIError

from fleet_events.topology import DATA, DEAD_STREAM
from fleet_kit import metrics
from fleet_kit.stream_room import look
from tests.conftest import empty_bus

pytestmark = pytest.mark.integration


async def test_a_stream_that_fills_is_measured_and_warned_of(servers, jetstream: JetStreamContext) -> None:
    config = (await jetstream.stream_info(DATA.name)).config
    await jetstream.update_stream(config.evolve(max_bytes=64 * 1024))
    client = await servers.connect_nats("registry")
    try:
        with structlog.testing.capture_logs() as before:
            assert (await look(client.jetstream(timeout=5)))[DATA.name] < 0.8
        for _ in range(14):
            await jetstream.publish("lorafleet.v1.data.sample_recorded", b"x" * 4096)
        with structlog.testing.capture_logs() as after:
            filled = await look(client.jetstream(timeout=5))
        assert 0.8 < filled[DATA.name] <= 1
        assert metrics.STREAM_FILL.labels(DATA.name)._value.get() == filled[DATA.name]
        assert [line["stream"] for line in before if line["event"] == "stream is nearly full"] == []
        assert [line["stream"] for line in after if line["event"] == "stream is nearly full"] == [DATA.name]
    finally:
        await client.close()
        await empty_bus(servers)


async def test_a_full_stream_of_dead_letters_refuses_new_ones_and_keeps_the_oldest(
    servers, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(DEAD_STREAM)).config
    assert not config.max_age
    await jetstream.update_stream(config.evolve(max_bytes=64 * 1024))
    client = await servers.connect_nats("registry")
    try:
        with pytest.raises(APIError, match="maximum bytes exceeded"):
            for _ in range(100):
                await client.jetstream(timeout=5).publish("lorafleet.dlq.registry.approved", b"x" * 4096)
        assert (await jetstream.stream_info(DEAD_STREAM)).state.first_seq == 1
        await look(client.jetstream(timeout=5))
        assert metrics.DEAD_LETTERS._value.get() == (await jetstream.stream_info(DEAD_STREAM)).state.messages
    finally:
        await client.close()
        await empty_bus(servers)
