"""Before a stream is full, a metric and the log tell so; when dead letters have no room, none is dropped."""

from typing import Any

import pytest
import structlog
from nats.js import JetStreamContext
from nats.js.errors import APIError

from fleet_events import v1
from fleet_events.topology import DATA, DEAD_STREAM, FACTS, row_of
from fleet_kit import metrics
from fleet_kit.errors import Refused
from fleet_kit.handlers import Handlers
from fleet_kit.stream_room import lag, look
from fleet_kit.transaction import Transaction
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
        assert [line["stream"] for line in before if line["event"] == "stream_nearly_full"] == []
        assert [line["stream"] for line in after if line["event"] == "stream_nearly_full"] == [DATA.name]
    finally:
        await client.close()
        await empty_bus(servers)


async def test_what_a_durable_has_not_acknowledged_is_measured_with_the_services_own_rights(
    servers, jetstream: JetStreamContext
) -> None:
    await empty_bus(servers)
    client = await servers.connect_nats("evaluator")
    try:
        before = await lag(client.jetstream(timeout=5), "evaluator")
        row = row_of(v1.EvaluationRequested)
        await jetstream.publish(row.subject, b"{}")
        after = await lag(client.jetstream(timeout=5), "evaluator")
        [grown] = [durable for durable in after if after[durable] != before[durable]]
        assert (after[grown], metrics.CONSUMER_LAG.labels(grown)._value.get()) == (1, 1)
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


async def test_a_full_stream_is_reported_with_the_servers_reason_and_relayed_once_there_is_room(
    run_kit, servers, jetstream: JetStreamContext, eventually
) -> None:
    handlers: Handlers[Any] = Handlers("registry")
    config = (await jetstream.stream_info(FACTS.name)).config
    dead = (await jetstream.stream_info(DEAD_STREAM)).config

    @handlers.on(v1.FeedbackRecorded)
    async def refuse(_event: v1.FeedbackRecorded, _tx: Transaction, _service: Any) -> None:
        raise Refused("by this test")

    def reasons(log: list[Any], event: str) -> list[str]:
        return [line["reason"] for line in log if line["event"] == event]

    async def warned() -> set[str]:
        subjects = (await jetstream.stream_info(FACTS.name, subjects_filter="lorafleet.v1.adapter.>")).state.subjects
        return set(subjects or {})

    try:
        await jetstream.update_stream(config.evolve(max_bytes=1))
        await jetstream.update_stream(dead.evolve(max_bytes=1))
        with structlog.testing.capture_logs() as log:
            async with run_kit(handlers) as service:
                async with service.transaction() as tx:
                    for number in range(3):
                        event = v1.Rejected(adapter_id=f"a-{number}", family="f", domain="d", by="test")
                        await tx.emit(event, f"a-{number}")
                body = v1.FeedbackRecorded(generation_id="g", rating=5).to_json()
                await jetstream.publish("lorafleet.v1.data.feedback_recorded", body, headers={"ce-id": "no-room"})
                await eventually(
                    lambda: reasons(log, "outbox_relay_waiting") and reasons(log, "dead_letter_not_stored")
                )
                with pytest.raises(APIError, match="maximum bytes exceeded"):
                    await service.publish(event, "a-2")
                await jetstream.update_stream(config)
                await jetstream.update_stream(dead)
                await eventually(warned, 20)
                await eventually(lambda: any(line["event"] == "dead_letter_stored" for line in log), 20)
        for event_name in ("outbox_relay_waiting", "dead_letter_not_stored"):
            assert all("maximum bytes exceeded" in reason for reason in reasons(log, event_name))
    finally:
        await empty_bus(servers)
