"""A host that vanishes sends no reset: whoever waits for it notices within seconds, not at the end of a long time limit."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import urllib3.exceptions

from fleet_cli.stack import Fleet
from fleet_events.topology import STREAM
from fleet_kit.blobs import Blobs
from fleet_kit.handlers import Handlers
from fleet_kit.settings import ServiceSettings
from tests.faulty_links import Fault, Links
from tests.vanishing_host import VanishingHost, vanishing_host

pytestmark = [pytest.mark.integration, pytest.mark.heavy, pytest.mark.timeout(180)]
NOTICED_SECONDS = 22.0
"""15 s, and what a loaded machine and one more try take."""


@asynccontextmanager
async def silent_server(folder: Path) -> AsyncIterator[tuple[VanishingHost, asyncio.Event]]:
    """A host whose server takes a request and does not answer; the event is set when it has one."""
    asked = asyncio.Event()

    async def take(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await asyncio.sleep(300)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    entered = vanishing_host(server.sockets[0].getsockname()[1], folder)
    host = await asyncio.to_thread(entered.__enter__)
    try:
        yield host, asked
    finally:
        await asyncio.to_thread(entered.__exit__, None, None, None)
        server.close()


@contextmanager
def noticed() -> Iterator[None]:
    """Fails unless what is within ends in time."""
    began = time.monotonic()
    yield
    taken = time.monotonic() - began
    assert taken < NOTICED_SECONDS
    print(f"noticed after {taken:.1f} s")


async def test_a_call_of_another_service_ends_when_its_host_vanishes(
    tmp_path: Path, run_kit: Callable[..., Any]
) -> None:
    async with run_kit(Handlers("registry")) as service, silent_server(tmp_path) as (host, asked):
        assert service.http.timeout.read > 2 * NOTICED_SECONDS  # its own time limit would end it as well
        call = asyncio.create_task(service.http.get(f"http://{host.address}/v1/answer"))
        await asked.wait()
        host.vanishes()
        with noticed(), pytest.raises(httpx.TransportError):
            await call


async def test_a_read_of_an_object_ends_when_the_stores_host_vanishes(
    tmp_path: Path, settings_of: Callable[..., ServiceSettings]
) -> None:
    async with silent_server(tmp_path) as (host, asked):
        blobs = Blobs("registry", settings_of("registry", s3_endpoint=f"http://{host.address}"))
        read = asyncio.create_task(blobs.read_named("notes"))
        await asked.wait()
        host.vanishes()
        with noticed(), pytest.raises(urllib3.exceptions.HTTPError):
            await read


async def test_a_service_goes_to_another_server_of_its_bus_when_the_host_of_one_vanishes(
    tmp_path: Path, servers: Fleet, run_kit: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    port = servers.ports["nats"]
    with vanishing_host(port, tmp_path) as host, Links() as links:
        other = links.to(port)
        # Only the host that vanishes answers at first: a service begins with any server of its address.
        other.breaks(Fault.CUT)
        addresses = f"nats://{host.address},nats://127.0.0.1:{other.port}"
        async with run_kit(Handlers("registry"), nats_url=addresses) as service:
            client = service.jetstream._nc
            assert client.connected_url.netloc == host.address
            other.heals()
            host.vanishes()
            with noticed():
                await eventually(
                    lambda: client.is_connected and client.connected_url.netloc != host.address, NOTICED_SECONDS + 5
                )
            assert (await service.jetstream.stream_info(STREAM)).config.name == STREAM
