"""An object store that is slow, fails or takes no writes: readiness has its reason, and events wait for it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_events.topology import DEAD_STREAM
from fleet_kit.handlers import Handlers
from fleet_kit.readiness import Cached
from fleet_kit.transaction import Transaction
from tests.faulty_store import FaultyStore, StoreFault
from tests.integration.kit.conftest import durable_of
from tests.integration.kit.test_kills import publish

pytestmark = pytest.mark.integration
EVENTS = 8
READY_SECONDS = 30.0


@pytest.fixture
async def store(servers: Fleet) -> AsyncIterator[tuple[FaultyStore, str]]:
    """The proxy and its address."""
    proxy = FaultyStore(servers.ports["s3"])
    address = await proxy.start()
    yield proxy, address
    proxy.stop()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (StoreFault.UNAVAILABLE, "SlowDown"),
        (StoreFault.BROKEN, "InternalError"),
        (StoreFault.RESET, "connection aborted"),
        (StoreFault.READ_ONLY, "AccessDenied"),
        pytest.param(StoreFault.SLOW, "", marks=pytest.mark.heavy),
    ],
)
async def test_events_whose_handler_writes_wait_for_the_store_and_take_effect_once(
    run_kit: Any,
    jetstream: JetStreamContext,
    eventually: Any,
    store: tuple[FaultyStore, str],
    fault: StoreFault,
    reason: str,
) -> None:
    proxy, address = store
    written = Counter[str]()
    handlers: Handlers[Any] = Handlers("registry")

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        await service.blobs.put("tests", event.generation_id.encode())
        if event.generation_id.startswith(fault.value):  # a test that failed leaves events behind
            written[event.generation_id] += 1

    async with run_kit(handlers, s3_endpoint=address) as service:

        async def readiness_reason() -> str:
            try:
                await Cached(service.object_store.probe)()
            except Exception as error:
                return str(error)
            return ""

        await eventually(lambda: service.relay.leads)
        assert await readiness_reason() == ""
        dead = (await jetstream.stream_info(DEAD_STREAM)).state.messages
        wanted = Counter({f"{fault.value}-{number}": 1 for number in range(EVENTS)})
        proxy.fault = fault
        for generation in wanted:
            await publish(jetstream, generation)
        await eventually(lambda: proxy.refused >= 3)
        assert reason.lower() in (await readiness_reason()).lower()
        if fault is not StoreFault.SLOW:
            assert not written
        proxy.fault = None
        healed = time.monotonic()

        async def done() -> bool:
            return len(written) == len(wanted) and (await durable_of(jetstream, "registry", v1.FeedbackRecorded)).idle

        await eventually(done, READY_SECONDS)
        assert await readiness_reason() == ""
        assert time.monotonic() - healed < READY_SECONDS
        await asyncio.sleep(0.2)
        assert written == wanted
        assert (await jetstream.stream_info(DEAD_STREAM)).state.messages == dead
