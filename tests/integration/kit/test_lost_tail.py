"""A server that lost what it had acknowledged gets it again from the outbox."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_events.topology import STREAM
from fleet_kit import retention
from fleet_kit.handlers import Handlers
from fleet_kit.outbox import unpublished
from fleet_kit.service import Service

pytestmark = pytest.mark.integration


def rejected(number: int) -> v1.Rejected:
    return v1.Rejected(adapter_id=f"a-{number}", family="f", domain="d", by="test")


async def emit(service: Service[Any, Any], numbers: range) -> None:
    async with service.transaction() as tx:
        for number in numbers:
            await tx.emit(rejected(number), f"a-{number}")


async def published(service: Service[Any, Any]) -> bool:
    async with service.db.acquire() as connection:
        return await unpublished(connection) == 0


async def stored(servers: Fleet) -> list[int]:
    """Numbers of the events in the stream, in its order, repetitions left out."""
    client = await servers.connect_nats("admin")
    try:
        jetstream = client.jetstream()
        found: dict[int, None] = {}
        for sequence in range(1, (await jetstream.stream_info(STREAM)).state.last_seq + 1):
            message = await jetstream.get_msg(STREAM, seq=sequence)
            if message.subject == "lorafleet.v1.adapter.rejected":
                found[int(v1.Rejected.from_json(message.data or b"").adapter_id.removeprefix("a-"))] = None
        return list(found)
    finally:
        await client.close()


async def roll_back(servers: Fleet, between: Callable[[], Any], copy: Path) -> None:
    """Stop the bus, copy its store, start it, do something, and put the copy in the place of the store."""
    store = servers.home.nats / "jetstream"
    await asyncio.to_thread(servers.stop_part, "nats")
    shutil.copytree(store, copy)
    await asyncio.to_thread(servers.start_part, "nats")
    await between()
    await asyncio.to_thread(servers.stop_part, "nats")
    shutil.rmtree(store)
    shutil.copytree(copy, store)


async def test_events_that_the_server_acknowledged_and_lost_are_published_again(
    run_kit, servers: Fleet, eventually, tmp_path: Path
) -> None:
    async with run_kit(Handlers("registry")) as service:
        await emit(service, range(5))
        await eventually(lambda: published(service))

        async def newer() -> None:
            await emit(service, range(5, 15))
            await eventually(lambda: published(service), 30)
            assert await stored(servers) == list(range(15))

        await roll_back(servers, newer, tmp_path / "copy")
        await asyncio.to_thread(servers.start_part, "nats")
        assert len(await stored(servers)) <= 15

        async def all_there() -> bool:
            return sorted(await stored(servers)) == list(range(15))

        await eventually(all_there, 30)


async def test_a_relay_that_starts_after_the_loss_publishes_it_again_before_anything_newer(
    run_kit, servers: Fleet, eventually, tmp_path: Path
) -> None:
    """Another publisher has meanwhile used the lost sequences, so that the stream's end alone tells nothing."""
    async with run_kit(Handlers("registry")) as service:
        await emit(service, range(100, 105))
        await eventually(lambda: published(service))

    async def newer() -> None:
        async with run_kit(Handlers("registry")) as later:
            await emit(later, range(105, 110))
            await eventually(lambda: published(later), 30)

    await roll_back(servers, newer, tmp_path / "copy")
    await asyncio.to_thread(servers.start_part, "nats")
    client = await servers.connect_nats("admin")
    for number in range(10):
        await client.jetstream().publish(
            "lorafleet.v1.adapter.approved", b"{}", headers={"Nats-Msg-Id": f"other-{number}"}
        )
    await client.close()
    assert not set(range(105, 110)) & set(await stored(servers))
    async with run_kit(Handlers("registry")) as service:

        async def all_there() -> bool:
            return set(range(100, 110)) <= set(await stored(servers))

        await eventually(all_there, 30)


async def test_events_are_published_once_while_the_server_stays(run_kit, servers: Fleet, eventually) -> None:
    async with run_kit(Handlers("registry")) as service:
        await emit(service, range(200, 203))
        await eventually(lambda: published(service))
        before = (await service.jetstream.stream_info(STREAM)).state.last_seq
    async with run_kit(Handlers("registry")) as service:
        await emit(service, range(203, 204))
        await eventually(lambda: published(service))
        assert (await service.jetstream.stream_info(STREAM)).state.last_seq == before + 1


async def test_old_rows_are_forgotten_in_batches_while_the_relay_leads(
    run_kit, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    monkeypatch.setattr(retention, "SWEEP_SECONDS", 0.2)
    async with run_kit(Handlers("registry")) as service:
        async with service.db.acquire() as connection:
            await connection.execute("truncate outbox, inbox, lease")
            await connection.execute(
                "insert into outbox (event_id, subject, entity, headers, body, published_at)"
                " select 'old-' || n, 's', 'e', '{}', '', now() - interval '25 hours' from generate_series(1, 35) as n"
            )
            await connection.execute(
                "insert into outbox (event_id, subject, entity, headers, body, published_at)"
                " values ('new', 's', 'e', '{}', '', now() - interval '23 hours')"
            )
            await connection.execute(
                "insert into inbox (consumer, event_id, handled_at) values"
                " ('registry-serving_generation_completed', 'gone', now() - interval '45 days'),"
                " ('registry-serving_generation_completed', 'can come again', now() - interval '43 days'),"
                " ('registry-training_completed', 'in the stream for good', now() - interval '400 days')"
            )
            await connection.execute(
                "insert into lease (name, holder, token, expires_at) values"
                " ('ended long ago', 'h', 7, now() - interval '91 days'), ('paused', 'h', 7, now() - interval '80 days')"
            )

        async def left() -> tuple[list[str], list[str], list[str]]:
            async with service.db.acquire() as connection:
                return (
                    [row[0] for row in await connection.fetch("select event_id from outbox order by 1")],
                    [row[0] for row in await connection.fetch("select event_id from inbox order by 1")],
                    [row[0] for row in await connection.fetch("select name from lease order by 1")],
                )

        kept = (["new"], ["can come again", "in the stream for good"], ["paused"])

        async def swept() -> bool:
            return await left() == kept

        await eventually(swept)
        async with service.db.acquire() as connection:
            assert not await retention.sweep(connection, "registry")  # nothing more is too old
        assert await left() == kept
