"""Many committed events are published as atomic batches; order and single storage hold whatever becomes of a batch."""

from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import FACTS
from fleet_kit import relay
from fleet_kit.handlers import Handlers
from fleet_kit.outbox import lead, unpublished
from fleet_kit.service import Service
from tests.conftest import empty_bus

pytestmark = pytest.mark.integration

COUNT = 100
OF_CRASHED = "select event_id, sequence from outbox where entity like 'crashed-%' order by position"


async def emit(service: Service[Any, Any], name: str, count: int = COUNT) -> None:
    """Commit events about two things by turns."""
    async with service.transaction() as tx:
        for number in range(count):
            thing = f"{name}-{number % 2}"
            await tx.emit(v1.Rejected(adapter_id=thing, family="f", domain="d", by="test", reason=str(number)), thing)


async def stored(jetstream: JetStreamContext, name: str) -> list[tuple[int, bool]]:
    """Numbers of the events in the order of the stream, and whether each came in a batch."""
    found: list[tuple[int, bool]] = []
    for sequence in range(1, (await jetstream.stream_info(FACTS.name)).state.last_seq + 1):
        message = await jetstream.get_msg(FACTS.name, seq=sequence)
        headers = message.headers or {}
        if headers.get("ce-subject", "").startswith(f"{name}-"):
            number = int(v1.Rejected.from_json(message.data or b"").reason)
            found.append((number, "Nats-Batch-Id" in headers))
    return found


async def drained(service: Service[Any, Any]) -> bool:
    async with service.db.acquire() as connection:
        return await unpublished(connection) == 0


async def test_many_events_are_stored_as_one_batch_and_marked_with_their_own_sequences(
    run_kit, jetstream, eventually
) -> None:
    async with run_kit(Handlers("registry")) as service:
        await emit(service, "batched")
        await eventually(lambda: drained(service))
        assert await stored(jetstream, "batched") == [(number, True) for number in range(COUNT)]
        async with service.db.acquire() as connection:
            rows = await connection.fetch(
                "select sequence, body from outbox where entity like 'batched-%' order by position"
            )
        for row in rows[:: COUNT // 4]:
            assert (await jetstream.get_msg(FACTS.name, seq=row["sequence"])).data == row["body"]


async def test_a_batch_that_was_stored_and_not_marked_is_stored_once(run_kit, jetstream, eventually) -> None:
    """As after a crash between acknowledgement and mark: the server refuses the batch for what it knows of it."""
    async with run_kit(Handlers("registry")) as service:
        await emit(service, "crashed", COUNT // 2)
        await eventually(lambda: drained(service))
        async with service.db.acquire() as connection, connection.transaction():
            before = await connection.fetch(OF_CRASHED)
            await connection.execute(
                "update outbox set published_at = null, stream = null, sequence = null where entity like 'crashed-%'"
            )
        await emit(service, "crashed", COUNT // 2)
        await eventually(lambda: drained(service))
        numbers = [number for number, _ in await stored(jetstream, "crashed")]
        assert numbers == [*range(COUNT // 2), *range(COUNT // 2)]
        async with service.db.acquire() as connection:
            after = await connection.fetch(OF_CRASHED)
        assert after[: COUNT // 2] == before


async def test_a_stream_without_batches_gets_its_events_one_by_one(servers, run_kit, jetstream, eventually) -> None:
    await empty_bus(servers)
    config = (await jetstream.stream_info(FACTS.name)).config
    await jetstream.update_stream(config.evolve(allow_atomic=False))
    try:
        async with run_kit(Handlers("registry")) as service:
            await emit(service, "single")
            await eventually(lambda: drained(service))
            assert await stored(jetstream, "single") == [(number, False) for number in range(COUNT)]
    finally:
        await empty_bus(servers)


async def test_a_commit_of_another_replica_wakes_the_relay(
    run_kit, jetstream, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "IDLE_SECONDS", 60.0)
    async with run_kit(Handlers("registry")) as first, run_kit(Handlers("registry")) as second:
        await eventually(lambda: first.relay.leads or second.relay.leads)
        other = second if first.relay.leads else first
        assert not other.relay.leads
        await emit(other, "notified", 3)
        await eventually(lambda: drained(other))
        assert [number for number, _ in await stored(jetstream, "notified")] == [0, 1, 2]


async def test_the_relays_session_alone_does_not_wait_for_the_disk(run_kit) -> None:
    async with run_kit(Handlers("registry")) as service, service.db.acquire() as first:
        assert await lead(first, "of-this-test")
        assert await first.fetchval("show synchronous_commit") == "off"
        process = first.get_server_pid()
        async with service.db.acquire() as other:
            assert await other.fetchval("show synchronous_commit") == "on"
        await service.db.release(first)
        async with service.db.acquire() as again:
            assert again.get_server_pid() == process
            assert await again.fetchval("show synchronous_commit") == "on"
