"""A deactivation tells whether it has reached the replicas that answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_events.topology import FACTS
from fleet_kit import tasks
from fleet_kit.positions import announce_position
from tests.conftest import RunningService
from tests.integration.registry.conftest import UNJUDGED, eventually, permit_unjudged
from tests.integration.registry.uploads import upload

pytestmark = pytest.mark.integration


@asynccontextmanager
async def replica(servers: Fleet, name: str, position: Callable[[], int]) -> AsyncIterator[None]:
    """A replica of inference as far as the registry can tell, with inference's own rights."""
    client = await servers.connect_nats("inference")
    looks = 0

    def looked() -> int:
        nonlocal looks
        looks += 1
        return position()

    announcing = asyncio.create_task(announce_position(client.jetstream(timeout=5), name, looked))
    async with asyncio.timeout(10):
        while looks < 2:  # it looks again once the first position is stored
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        await tasks.end(announcing)  # one cancellation may be lost in nats-py
        await client.close()


@pytest.fixture
async def active(registry: RunningService, peft: Path, domain: str) -> str:
    """Id of a version that serves."""
    name = str((await upload(registry.client, peft, domain=domain)).json()["adapter_id"])
    await permit_unjudged(registry, domain)
    approved = await registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED)
    assert approved.json()["active"]
    return name


async def deactivate(registry: RunningService, name: str) -> httpx.Response:
    return await registry.client.post(f"/v1/adapters/{name}/deactivate", json={"reason": "withdrawn"})


async def test_it_is_done_when_every_replica_has_applied_it(
    registry: RunningService, servers: Fleet, jetstream: JetStreamContext, active: str
) -> None:
    position = 0

    async def follow() -> None:
        nonlocal position
        while True:
            position = (await jetstream.stream_info(FACTS.name)).state.last_seq
            await asyncio.sleep(0.05)

    following = asyncio.create_task(follow())
    try:
        async with replica(servers, "one", lambda: position), replica(servers, "two", lambda: position):
            answer = await deactivate(registry, active)
    finally:
        await tasks.end(following)
    assert answer.status_code == 200, answer.text
    assert answer.json()["withdrawal"] == {"published": True, "applied": ["one", "two"], "pending": []}


async def test_a_replica_that_has_not_applied_it_is_named(
    registry: RunningService, servers: Fleet, active: str
) -> None:
    async with replica(servers, "stuck", lambda: 0):
        answer = await deactivate(registry, active)
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert not found["active"]
    assert found["withdrawal"]["published"]
    assert "stuck" in found["withdrawal"]["pending"]


async def test_an_event_that_the_bus_has_no_room_for_is_reported_and_comes_later(
    registry: RunningService, jetstream: JetStreamContext, active: str
) -> None:
    await eventually(lambda: _newest_is_about(jetstream, active, "lorafleet.v1.adapter.activated"))
    info = await jetstream.stream_info(FACTS.name)
    await jetstream.update_stream(info.config.evolve(max_bytes=info.state.bytes))
    try:
        answer = await deactivate(registry, active)
        assert answer.status_code == 202, answer.text
        assert answer.json()["withdrawal"] == {"published": False, "applied": [], "pending": []}
    finally:
        await jetstream.update_stream(info.config)
    await eventually(lambda: _newest_is_about(jetstream, active, "lorafleet.v1.adapter.deactivated"))


async def _newest_is_about(jetstream: JetStreamContext, adapter_id: str, subject: str) -> bool:
    newest = await jetstream.get_last_msg(FACTS.name, subject)
    return (newest.headers or {}).get("ce-subject") == adapter_id
