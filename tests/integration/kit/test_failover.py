"""PostgreSQL fails over to a standby: services follow by the addresses of both, without an operator of theirs."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from fleet_cli.stack import Fleet, embedding_model_path
from fleet_cli.stack.environment import service_environment
from fleet_cli.stack.ports import LOOPBACK, choose
from fleet_kit.migrate import migrate
from fleet_kit.service import create_app
from fleet_kit.settings import ServiceSettings
from tests.integration.kit.effects import echoing, effects, publish
from tests.standby import Standby, follow_synchronously, standby_of
from tests.vanishing_host import VanishingHost, vanishing_host

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

READY_SECONDS = 30.0
"""In which a service is ready again once there is a server that takes writes."""
EVENTS = 40


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Fleet]:
    """Servers of this test alone: one of them is lost."""
    with Fleet(tmp_path / "home") as stack:
        stack.start([])
        yield stack


def settings(servers: Fleet, hosts: str) -> ServiceSettings:
    """Those of a registry whose database is at one of several `host:port`."""
    ports = {**servers.ports, **choose(("registry",), {})}
    environment = service_environment("registry", servers.home, ports, servers.credentials, embedding_model_path())
    values = {
        name.removeprefix("LORAFLEET_").lower(): value.replace(f"{LOOPBACK}:{servers.ports['postgres']}", hosts)
        if name == "LORAFLEET_DATABASE_URL"
        else value
        for name, value in environment.items()
        if name.startswith("LORAFLEET_")
    }
    return ServiceSettings.model_validate(values)


@pytest.mark.parametrize("loss", ["killed", pytest.param("vanished", marks=pytest.mark.heavy)])
async def test_a_service_follows_its_database_to_the_standby_and_loses_and_doubles_nothing(
    loss: str, own_servers: Fleet, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    with ExitStack() as stack:
        standby: Standby = await asyncio.to_thread(stack.enter_context, standby_of(own_servers, tmp_path / "standby"))
        await follow_synchronously(own_servers.info.database_admin_url)
        port = own_servers.ports["postgres"]
        host: VanishingHost | None = None
        if loss == "vanished":
            host = stack.enter_context(vanishing_host(port, tmp_path))
        hosts = f"{host.address if host else f'{LOOPBACK}:{port}'},{LOOPBACK}:{standby.port}"
        configured = settings(own_servers, hosts)
        admin = await own_servers.connect_nats("admin")
        app = create_app("registry", configured, handlers=echoing(), api=APIRouter())
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://kit") as client,
        ):
            jetstream = admin.jetstream()

            async def ready() -> bool:
                return (await client.get("/readyz")).status_code == 200

            async def unready() -> bool:
                return not await ready()

            await eventually(ready, READY_SECONDS)
            busy = asyncio.create_task(publish(jetstream, "event-", range(EVENTS // 2)))
            await asyncio.sleep(0.2)
            if host is None:
                await asyncio.to_thread(own_servers.part("postgres").crash)
            else:
                host.vanishes()
            await publish(jetstream, "event-", range(EVENTS // 2, EVENTS))
            await busy
            await eventually(unready, 20)
            await standby.promote()
            promoted = time.monotonic()
            await eventually(ready, READY_SECONDS)
            wanted = {f"event-{number}" for number in range(EVENTS)}

            async def all_took_effect() -> bool:
                return set(await effects(jetstream, "event-")) == wanted

            await eventually(all_took_effect, READY_SECONDS)
            print(f"{loss}: all done {time.monotonic() - promoted:.1f} s after the standby was promoted")
            assert await effects(jetstream, "event-") == Counter(wanted)
            await asyncio.to_thread(migrate, "registry", configured.database_address)
        await admin.close()
