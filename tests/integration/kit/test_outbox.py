"""State change and event are one transaction; the relay says each event, in order, once it is committed."""

import asyncio
import time
from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import STREAM
from fleet_kit import outbox
from fleet_kit.handlers import Handlers
from fleet_kit.outbox import unpublished

pytestmark = pytest.mark.integration


def approved(adapter: str, revision: int) -> v1.Approved:
    return v1.Approved(
        adapter_id=adapter, family="f", domain="d", artifact_sha256="0" * 64, by="test", revision=revision
    )


async def published(jetstream: JetStreamContext, entity: str) -> list[int]:
    """Revisions of the Approved events about an entity, in the stream's order."""
    found: list[int] = []
    for sequence in range(1, (await jetstream.stream_info(STREAM)).state.last_seq + 1):
        message = await jetstream.get_msg(STREAM, seq=sequence)
        if (message.headers or {}).get("ce-subject") == entity:
            found.append(v1.Approved.from_json(message.data or b"").revision)
    return found


async def test_an_event_of_a_rolled_back_transaction_is_never_published(run_kit, jetstream, eventually) -> None:
    async with run_kit(Handlers("registry")) as service:
        with pytest.raises(RuntimeError, match="something went wrong"):
            async with service.transaction() as tx:
                await tx.emit(approved("rolled-back", 1), "rolled-back")
                raise RuntimeError("something went wrong")
        async with service.transaction() as tx:
            await tx.emit(approved("kept", 1), "kept")
        await eventually(lambda: published(jetstream, "kept"))
        assert await published(jetstream, "rolled-back") == []


@pytest.mark.parametrize("turns", range(4))
async def test_a_service_that_stops_in_the_moment_of_a_commit_ends_at_once(
    run_kit, jetstream, eventually, turns: int
) -> None:
    """The relay wakes and is cancelled at once, so many turns of the event loop apart.

    Timed, as a shutdown that hangs would take a timeout's cancellation for its own.
    """
    async with run_kit(Handlers("registry")) as service:
        async with service.transaction() as tx:
            await tx.emit(approved(f"first-{turns}", 1), f"first-{turns}")
        await eventually(lambda: published(jetstream, f"first-{turns}"))

        async def marked() -> bool:
            async with service.db.acquire() as connection:
                return await unpublished(connection) == 0

        await eventually(marked)  # the relay waits for the next commit
        async with service.transaction() as tx:
            await tx.emit(approved(f"last-{turns}", 1), f"last-{turns}")
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 3
    async with run_kit(Handlers("registry")):  # what was committed is said, if need be by the next
        await eventually(lambda: published(jetstream, f"last-{turns}"))


async def test_events_of_one_thing_keep_their_order(run_kit, jetstream, eventually) -> None:
    async with run_kit(Handlers("registry")) as service:
        for revision in range(1, 41):
            async with service.transaction() as tx:
                await tx.emit(approved("ordered", revision), "ordered")

        async def all_published() -> bool:
            return len(await published(jetstream, "ordered")) >= 40

        await eventually(all_published)
        assert await published(jetstream, "ordered") == list(range(1, 41))


async def test_a_committed_event_outlives_a_process_that_dies_before_publishing(
    run_kit, settings_of, jetstream, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncpg

    attempts: list[bool] = []
    lead = outbox.lead

    async def noted(connection: Any, service: str) -> bool:
        attempts.append(await lead(connection, service))
        return attempts[-1]

    monkeypatch.setattr(outbox, "lead", noted)
    # Another session holds the relay's lock, as a second replica would: this process commits and cannot publish.
    blocker = await asyncpg.connect(settings_of("registry").database_url)
    await blocker.fetchval("select pg_advisory_lock(hashtext($1))", "outbox:registry")
    try:
        async with run_kit(Handlers("registry")) as service:
            async with service.transaction() as tx:
                await tx.emit(approved("survivor", 1), "survivor")
            attempts.clear()
            await eventually(lambda: len(attempts) >= 2)  # the relay has looked since the commit
            assert await published(jetstream, "survivor") == []
            async with service.db.acquire() as connection:
                assert await unpublished(connection) == 1
    finally:
        await blocker.close()
    async with run_kit(Handlers("registry")) as service:
        await eventually(lambda: published(jetstream, "survivor"))

        async def drained() -> bool:
            async with service.db.acquire() as connection:
                return await unpublished(connection) == 0

        await eventually(drained)
        assert await published(jetstream, "survivor") == [1]


async def test_one_relay_at_a_time_publishes_for_two_replicas(run_kit, jetstream, eventually) -> None:
    async with run_kit(Handlers("registry")) as first, run_kit(Handlers("registry")) as second:
        for number in range(10):
            service: Any = (first, second)[number % 2]
            async with service.transaction() as tx:
                await tx.emit(approved("replicas", number), "replicas")

        async def all_published() -> bool:
            return len(await published(jetstream, "replicas")) >= 10

        await eventually(all_published)

        async def all_marked() -> bool:
            async with first.db.acquire() as connection:
                return await unpublished(connection) == 0

        await eventually(all_marked)  # whatever either relay still had to send has been sent
        assert await published(jetstream, "replicas") == list(range(10))


async def test_an_event_over_the_size_bound_is_refused_before_anything_is_committed(run_kit) -> None:
    async with run_kit(Handlers("registry")) as service:
        with pytest.raises(ValueError, match="put the content in the object store"):
            async with service.transaction() as tx:
                await tx.emit(v1.Rejected(adapter_id="a", family="f", domain="d", by="x", reason="y" * 300_000), "a")
