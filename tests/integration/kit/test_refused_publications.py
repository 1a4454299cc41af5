"""An event that JetStream refuses for good becomes a dead letter; those behind it are published, in their order."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import structlog
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import FACTS, STREAM
from fleet_kit import outbox, retention
from fleet_kit.cloudevents import Outgoing, seal
from fleet_kit.dead_letters import DeadLetter, list_dead, replay
from fleet_kit.handlers import Handlers
from fleet_kit.outbox import unpublished
from fleet_kit.provision import provision
from fleet_kit.service import Service
from tests.conftest import empty_bus

pytestmark = pytest.mark.integration

MEGABYTE = 1024 * 1024


def rejected(adapter: str, reason: str) -> Outgoing:
    event = v1.Rejected(adapter_id=adapter, family="f", domain="d", by="test", reason=reason)
    return seal(event, service="registry", entity=adapter, trace={})


async def write(service: Service[Any, Any], *events: Outgoing) -> None:
    """Commit events in one transaction, past the bounds that `Transaction.emit` checks."""
    async with service.transaction() as tx:
        for event in events:
            await outbox.add(tx.connection, event)
        tx.emitted += len(events)


async def drained(service: Service[Any, Any]) -> bool:
    async with service.db.acquire() as connection:
        return await unpublished(connection) == 0


async def stored(jetstream: JetStreamContext, entity: str) -> list[str]:
    """Reasons of the Rejected events about an entity, in the stream's order, without those published twice."""
    found: dict[str, None] = {}
    for sequence in range(1, (await jetstream.stream_info(STREAM)).state.last_seq + 1):
        message = await jetstream.get_msg(STREAM, seq=sequence)
        if (message.headers or {}).get("ce-subject") == entity:
            found[v1.Rejected.from_json(message.data or b"").reason] = None
    return list(found)


async def letters(jetstream: JetStreamContext, entity: str) -> list[DeadLetter]:
    return [letter async for letter in list_dead(jetstream) if letter.headers.get("ce-subject") == entity]


@asynccontextmanager
async def stream_limits(jetstream: JetStreamContext, **limits: int) -> AsyncIterator[None]:
    config = (await jetstream.stream_info(FACTS.name)).config
    await jetstream.update_stream(config.evolve(**limits))
    try:
        yield
    finally:
        await jetstream.update_stream(config)


def waits(logs: list[Any]) -> int:
    return sum(line["event"] == "outbox_relay_waiting" for line in logs)


def with_body(event: Outgoing, size: int) -> Outgoing:
    return replace(event, body=event.body.ljust(size))


def with_header(event: Outgoing, name: str, value: str) -> Outgoing:
    return replace(event, headers={**event.headers, name: value})


@pytest.mark.parametrize(
    ("case", "spoil", "reason"),
    [
        ("body-over-payload", lambda event: with_body(event, MEGABYTE + 1), "over the 1048576"),
        ("headers-beside-body", lambda event: with_body(event, MEGABYTE - 10), "over the 1048576"),
        ("space-in-subject", lambda event: replace(event, subject="lorafleet.v1.adapter. rejected"), "subject"),
        ("empty-token", lambda event: replace(event, subject="lorafleet.v1..rejected"), "subject"),
        ("header-name", lambda event: with_header(event, "no colon: here", "x"), "header"),
        ("headers-over-64k", lambda event: with_header(event, "x-long", "y" * 70_000), "header size exceeds maximum"),
        ("ttl", lambda event: with_header(event, "Nats-TTL", "soon"), "invalid per-message TTL"),
    ],
)
async def test_an_event_that_the_server_refuses_for_good_is_a_dead_letter_and_the_others_go_on(
    run_kit, jetstream, eventually, case: str, spoil: Callable[[Outgoing], Outgoing], reason: str
) -> None:
    bad = spoil(rejected(case, "second"))
    async with run_kit(Handlers("registry")) as service:
        await write(service, rejected(case, "first"), bad, rejected(case, "third"), rejected(f"{case}-other", "first"))
        await eventually(lambda: drained(service))
    assert await stored(jetstream, case) == ["first", "third"]
    assert await stored(jetstream, f"{case}-other") == ["first"]
    (letter,) = await letters(jetstream, case)
    assert reason in letter.reason
    assert (letter.consumer, letter.event_id, letter.subject) == ("registry-outbox", bad.id, bad.subject)
    assert letter.truncated or letter.body == bad.body


async def test_an_event_over_the_stream_s_message_size_is_replayed_to_all_consumers_once_there_is_room(
    run_kit, jetstream, eventually
) -> None:
    large = rejected("large", "second" + "y" * 5000)
    async with run_kit(Handlers("registry")) as service:
        async with stream_limits(jetstream, max_msg_size=4096):
            await write(service, rejected("large", "first"), large, rejected("large", "third"))
            await eventually(lambda: drained(service))
            assert await stored(jetstream, "large") == ["first", "third"]
        (letter,) = await letters(jetstream, "large")
        assert "message size exceeds maximum allowed" in letter.reason
        assert letter.body == large.body
        await replay(jetstream, letter.sequence)
    last = await jetstream.get_last_msg(STREAM, large.subject)
    assert last.data == large.body
    assert "Lorafleet-Only-For" not in (last.headers or {})
    assert await letters(jetstream, "large") == []


async def test_a_refused_event_stays_in_the_outbox_longer_than_published_ones(run_kit, jetstream, eventually) -> None:
    """Its letter may hold only the beginning of its body."""
    async with run_kit(Handlers("registry")) as service:
        await write(service, with_body(rejected("kept", "large"), MEGABYTE + 1), rejected("kept", "small"))
        await eventually(lambda: drained(service))
        async with service.db.acquire() as connection:
            await connection.execute("update outbox set published_at = published_at - interval '2 days'")
            await retention.sweep(connection, "registry")
            assert await connection.fetchval("select count(*) from outbox where entity = 'kept'") == 1
            await connection.execute("update outbox set published_at = published_at - interval '91 days'")
            await retention.sweep(connection, "registry")
            assert await connection.fetchval("select count(*) from outbox where entity = 'kept'") == 0


async def test_a_full_stream_holds_events_up_and_makes_no_dead_letter(run_kit, jetstream, eventually) -> None:
    async with run_kit(Handlers("registry")) as service:
        async with stream_limits(jetstream, max_msgs=(await jetstream.stream_info(STREAM)).state.messages + 1):
            for number in range(3):
                await write(service, rejected("full", str(number)))
            await eventually(lambda: stored(jetstream, "full"))
            with structlog.testing.capture_logs() as logs:
                await eventually(lambda: waits(logs) >= 2)
            assert await stored(jetstream, "full") == ["0"]
        await eventually(lambda: drained(service))
    assert await stored(jetstream, "full") == ["0", "1", "2"]
    assert await letters(jetstream, "full") == []


async def test_events_wait_for_a_stream_that_is_not_provisioned(servers, run_kit, jetstream, eventually) -> None:
    async with run_kit(Handlers("registry")) as service:
        await jetstream.delete_stream(STREAM)
        try:
            with structlog.testing.capture_logs() as logs:
                await write(service, rejected("no-stream", "first"), rejected("no-stream", "second"))
                await eventually(lambda: waits(logs) >= 2)
            assert await letters(jetstream, "no-stream") == []
            await provision(jetstream)
            await eventually(lambda: drained(service))
            assert await stored(jetstream, "no-stream") == ["first", "second"]
        finally:
            await empty_bus(servers)
