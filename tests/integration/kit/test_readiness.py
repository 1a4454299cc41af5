"""Readiness is a write to each server, bounded in time and not repeated for each who asks."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import nats.errors
import nats.js.errors
import pytest
from fastapi import APIRouter
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy

from fleet_cli.stack import Fleet
from fleet_events.topology import PROBE_STREAM, SERVICES, probe_subject
from fleet_kit import readiness
from fleet_kit.provision import probe_config, provision
from fleet_kit.readiness import Cached
from fleet_kit.service import create_app

pytestmark = pytest.mark.integration


@pytest.fixture
def ask(settings_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`async with ask() as readyz:` a service, and a call of its /readyz; results count for a moment only."""
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "FAILED_SECONDS", 0.05)

    @asynccontextmanager
    async def running(**changes: object) -> AsyncIterator[Callable[[], Any]]:
        app = create_app("registry", settings_of("registry", **changes), api=APIRouter())
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://kit") as client:

                async def readyz() -> httpx.Response:
                    return await client.get("/readyz")

                yield readyz

    return running


async def ready(readyz: Callable[[], Any]) -> bool:
    return bool((await readyz()).status_code == 200)


async def refused(readyz: Callable[[], Any], check: str) -> bool:
    """Whether it is not ready by that check alone, with a time to come again."""
    answer = await readyz()
    faulty = [name for name, result in answer.json()["checks"].items() if result != "ok"]
    return (answer.status_code, answer.headers.get("Retry-After"), faulty) == (503, "2", [check])


async def test_a_service_is_ready_once_each_server_took_a_write(
    ask: Any, jetstream: JetStreamContext, eventually, servers: Fleet
) -> None:
    async with ask() as readyz:
        await eventually(lambda: ready(readyz))
        assert set((await readyz()).json()["checks"]) == {"nats", "rights", "s3", "database", "access"}
    assert (await jetstream.stream_info(PROBE_STREAM)).state.messages >= 1
    message = await jetstream.get_last_msg(PROBE_STREAM, probe_subject("registry"))
    assert not message.data


async def test_each_service_may_probe_on_its_own_subject_only(servers: Fleet) -> None:
    for service in SERVICES:
        client = await servers.connect_nats(service)
        try:
            acknowledged = await client.jetstream().publish(probe_subject(service), b"", timeout=5)
            assert acknowledged.stream == PROBE_STREAM
            other = "registry" if service == "trainer" else "trainer"
            with pytest.raises((nats.errors.Error, nats.js.errors.Error)):  # the server drops it
                await client.jetstream().publish(probe_subject(other), b"", timeout=0.3)
        finally:
            await client.close()


async def test_a_bus_that_stores_nothing_is_not_ready_though_it_answers(
    ask: Any, jetstream: JetStreamContext, eventually
) -> None:
    async with ask() as readyz:
        await eventually(lambda: ready(readyz))
        full = probe_config()
        full.discard, full.max_msgs_per_subject, full.max_bytes = DiscardPolicy.NEW, -1, 1
        await jetstream.purge_stream(PROBE_STREAM)
        await jetstream.update_stream(full)
        try:
            await eventually(lambda: refused(readyz, "nats"))
        finally:
            await provision(jetstream)
        await eventually(lambda: ready(readyz))


async def test_a_read_only_database_is_not_ready_though_it_answers(
    ask: Any, settings_of: Callable[..., Any], eventually
) -> None:
    admin = await asyncpg.connect(settings_of("registry").database_url)
    database = await admin.fetchval("select current_database()")
    try:
        await admin.execute(f'alter role current_user in database "{database}" set default_transaction_read_only = on')
        async with ask() as readyz:
            await eventually(lambda: refused(readyz, "database"))
            assert "read-only" in (await readyz()).json()["checks"]["database"]
    finally:
        await admin.execute("set default_transaction_read_only = off")
        await admin.execute(f'alter role current_user in database "{database}" reset default_transaction_read_only')
        await admin.close()


async def test_a_store_that_takes_no_write_is_not_ready(ask: Any, eventually) -> None:
    async with ask(s3_bucket="not-ours") as readyz:
        await eventually(lambda: refused(readyz, "s3"))


async def test_a_server_that_hangs_is_not_ready_in_bounded_time(ask: Any, eventually) -> None:
    hanging = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
    host, port = hanging.sockets[0].getsockname()
    try:
        async with ask(s3_endpoint=f"http://{host}:{port}") as readyz:
            await eventually(lambda: refused(readyz, "s3"), 30)
            began = time.monotonic()
            await readyz()
            assert time.monotonic() - began < 3.5
    finally:
        hanging.close()


async def test_many_who_ask_cause_one_write() -> None:
    writes = 0
    failing = True

    async def write() -> None:
        nonlocal writes
        writes += 1
        await asyncio.sleep(0.01)
        if failing:
            raise OSError("no space left")

    check = Cached(write)
    results = await asyncio.gather(*(check() for _ in range(50)), return_exceptions=True)
    assert writes == 1
    assert all(isinstance(result, OSError) for result in results)
    failing = False
    await asyncio.sleep(readiness.FAILED_SECONDS)
    await asyncio.gather(*(check() for _ in range(50)))
    await asyncio.sleep(readiness.FAILED_SECONDS)
    await check()
    assert writes == 2
