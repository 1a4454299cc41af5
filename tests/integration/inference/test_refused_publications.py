"""An event of inference that JetStream refuses for good is a dead letter; it holds up nothing behind it."""

import asyncio

import pytest

from fleet_events import v1
from fleet_events.topology import SERVING, row_of
from fleet_kit.dead_letters import list_dead
from services.inference.publisher import Publisher
from tests.conftest import empty_bus

pytestmark = pytest.mark.integration


def unloaded(adapter: str, reason: str) -> v1.AdapterUnloaded:
    return v1.AdapterUnloaded(adapter_id=adapter, domain="d", replica="r", reason=reason)


@pytest.mark.usefixtures("module_database")
async def test_an_answer_s_event_over_the_stream_s_message_size_does_not_hold_up_the_next(servers, jetstream) -> None:
    config = (await jetstream.stream_info(SERVING.name)).config
    await jetstream.update_stream(config.evolve(max_msg_size=4096))
    client = await servers.connect_nats("inference")
    publisher = Publisher(client.jetstream(timeout=5), limit=10)
    running = asyncio.create_task(publisher.run())
    try:
        publisher.publish(unloaded("large", "x" * 5000), "large")
        publisher.publish(unloaded("small", "idle"), "small")
        async with asyncio.timeout(15):
            while not (await jetstream.stream_info(SERVING.name)).state.messages:
                await asyncio.sleep(0.02)
        last = await jetstream.get_last_msg(SERVING.name, row_of(v1.AdapterUnloaded).subject)
        assert v1.AdapterUnloaded.from_json(last.data or b"").adapter_id == "small"
        [letter] = [letter async for letter in list_dead(jetstream, "inference-outbox")]
        assert "message size exceeds maximum allowed" in letter.reason
        assert v1.AdapterUnloaded.from_json(letter.body).adapter_id == "large"
    finally:
        running.cancel()
        await client.close()
        await empty_bus(servers)
