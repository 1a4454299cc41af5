"""A link to a server that is cut, takes no bytes or takes few: nothing is lost or doubled, and it heals by itself."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import APIRouter
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_kit.service import create_app
from fleet_kit.settings import ServiceSettings
from tests.faulty_links import Fault, Link, Links
from tests.integration.kit.effects import echoing, effects, publish

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CHECKS = {"nats": "nats", "postgres": "database", "s3": "s3"}
"""Server → the readiness check that names it."""
FAULTY_SECONDS = 4.0
READY_SECONDS = 30.0
"""In which a service is ready again once the cause is gone."""
EVENTS = 20

Settings = Callable[..., ServiceSettings]


@pytest.fixture
def links(servers: Fleet) -> Iterator[dict[str, Link]]:
    """A link to each server."""
    with Links() as made:
        yield {name: made.to(servers.ports[name]) for name in CHECKS}


def through(settings: ServiceSettings, links: dict[str, Link]) -> dict[str, object]:
    """Its addresses by way of the links."""
    return {
        "nats_url": links["nats"].address(settings.nats_url),
        "database_url": links["postgres"].address(str(settings.database_url)),
        "s3_endpoint": links["s3"].address(settings.s3_endpoint),
    }


SERVER_FAULTS = [
    pytest.param(server, fault, marks=() if fault is Fault.BLACK_HOLE else pytest.mark.heavy)
    for server in CHECKS
    for fault in Fault
]


@pytest.mark.parametrize(("server", "fault"), SERVER_FAULTS)
async def test_a_broken_link_to_a_server_loses_and_doubles_nothing_and_readiness_comes_back(
    server: str, fault: Fault, links: dict[str, Link], settings_of: Settings, jetstream: JetStreamContext, eventually
) -> None:
    run = f"{server}-{fault.name}-".lower()
    plain = settings_of("registry")
    app = create_app("registry", settings_of("registry", **through(plain, links)), handlers=echoing(), api=APIRouter())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://kit") as client,
    ):

        async def checks() -> dict[str, str]:
            answer = await client.get("/readyz")
            return {name: text for name, text in answer.json()["checks"].items() if text != "ok"}

        async def ready() -> bool:
            return not await checks()

        async def unready() -> bool:
            return CHECKS[server] in await checks()

        await eventually(ready, READY_SECONDS)
        busy = asyncio.create_task(publish(jetstream, run, range(EVENTS // 2)))
        await asyncio.sleep(0.1)
        links[server].breaks(fault)
        await publish(jetstream, run, range(EVENTS // 2, EVENTS))
        await busy
        if fault is not Fault.SLOW:  # a slow server is ready
            await eventually(unready, 15)
        await asyncio.sleep(FAULTY_SECONDS)
        links[server].heals()
        healed = time.monotonic()
        await eventually(ready, READY_SECONDS)
        wanted = {f"{run}{number}" for number in range(EVENTS)}

        async def all_published() -> bool:
            return set(await effects(jetstream, run)) == wanted

        await eventually(all_published, READY_SECONDS)
        print(f"{server} {fault.value}: all done {time.monotonic() - healed:.1f} s after the link healed")
    assert Counter(await effects(jetstream, run)) == Counter(wanted)
