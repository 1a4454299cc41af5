"""An address of the bus may name several servers of a cluster: one that is down keeps nobody from the others."""

import asyncio
from typing import Any

import asyncpg
import pytest

from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_kit.handlers import Handlers
from fleet_kit.transaction import Transaction
from lorafleet import bus
from lorafleet.errors import Unreachable
from lorafleet.home import FleetHome
from tests.integration.kit.test_kills import publish

pytestmark = pytest.mark.integration
NOBODY = "nats://127.0.0.1:1"


async def test_a_service_uses_the_server_that_is_there(
    run_kit: Any, jetstream: Any, servers: Fleet, eventually
) -> None:
    handled: list[str] = []
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        handled.append(event.generation_id)

    async with run_kit(handlers, nats_url=f"{NOBODY},{servers.info.nats_url}"):
        await publish(jetstream, "by-the-second")
        await eventually(lambda: handled == ["by-the-second"])


async def test_a_service_that_is_stopped_while_the_bus_is_unavailable_ends_in_order(
    run_kit: Any, servers: Fleet, eventually
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, onward = await asyncio.open_connection("127.0.0.1", servers.ports["nats"])
        writers.extend((writer, onward))
        await asyncio.gather(pump(reader, onward), pump(answers, writer))

    async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            to.write(data)

    link = await asyncio.start_server(forward, "127.0.0.1", 0)
    address = "nats://{}:{}".format(*link.sockets[0].getsockname())
    async with run_kit(Handlers("registry"), nats_url=address) as service:
        pool = service.db
        link.close()
        for writer in writers:
            writer.close()
        await eventually(lambda: not service.jetstream._nc.is_connected)
    with pytest.raises(asyncpg.InterfaceError, match="closed"):  # it came as far as its last step
        await pool.fetchval("select 1")
    assert service.jetstream._nc.is_closed


async def test_commands_use_the_server_that_is_there_and_report_where_none_is(servers: Fleet) -> None:
    def home(*addresses: str) -> FleetHome:
        return FleetHome(servers.home.root, {"LORAFLEET_NATS_URL": ",".join(addresses)})

    async with bus.connect(home(NOBODY, servers.info.nats_url)) as client:
        assert client.is_connected
    with pytest.raises(Unreachable, match="NATS"):
        async with bus.connect(home(NOBODY, "nats://127.0.0.1:2")):
            pass
