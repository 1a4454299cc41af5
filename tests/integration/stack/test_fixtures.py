"""What the test fixtures promise to the tests of the services."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import httpx
import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_events.topology import STREAMS, durable_name, rows_of

RunService = Callable[..., AbstractAsyncContextManager[Any]]


async def test_a_module_has_a_migrated_database_of_its_own(
    servers: Fleet, service_env: Callable[..., dict[str, str]]
) -> None:
    env = service_env("registry")
    connection = await asyncpg.connect(env["LORAFLEET_DATABASE_URL"])
    try:
        assert await connection.fetchval("SELECT current_database()") != "lorafleet"
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
        await connection.execute("CREATE TABLE mine (x int)")
    finally:
        await connection.close()
    template = await asyncpg.connect(servers.info.database_admin_url)
    try:
        assert await template.fetchval("SELECT to_regclass('registry.mine')") is None
    finally:
        await template.close()


async def test_a_module_finds_an_empty_stream_with_all_durables(
    jetstream: JetStreamContext, service_env: Callable[..., dict[str, str]]
) -> None:
    for stream in STREAMS:
        assert (await jetstream.stream_info(stream.name)).state.messages == 0
        found = {consumer.name for consumer in await jetstream.consumers_info(stream.name)}
        assert found == {durable_name(consumer, row) for row in rows_of(stream) for consumer in row.consumed_by}


@pytest.mark.usefixtures("base_model")
async def test_a_service_runs_on_the_servers_and_survives_kill(
    run_service: RunService, mint: Callable[..., str]
) -> None:
    async with run_service("registry") as registry:
        assert (await registry.client.get("/v1/adapters")).status_code == 200
        nobody = {"Authorization": f"Bearer {mint(['feedback'])}"}
        assert (await registry.client.get("/v1/adapters", headers=nobody)).status_code == 403
        await registry.kill()
        await registry.wait_ready()
        assert (await registry.client.get("/v1/adapters")).status_code == 200
        await registry.crash()
        with pytest.raises(httpx.TransportError):
            await registry.client.get("/v1/adapters")
        await registry.start()
        assert (await registry.client.get("/v1/adapters")).status_code == 200
    with pytest.raises(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            await client.get(f"{registry.url}/healthz")
