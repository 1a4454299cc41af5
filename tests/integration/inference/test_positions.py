"""A real replica reports the facts it has applied: once it reports a deactivation, it answers with the adapter no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet_cli.stack import Fleet
from fleet_events.topology import FACTS, row_of
from fleet_events.v1 import AdapterDeactivated
from fleet_kit.positions import Reached, reached
from tests.conftest import RunningService
from tests.integration.inference.conftest import Made, Registry, answered, chat, eventually

pytestmark = pytest.mark.integration


async def test_a_replica_that_reports_a_deactivation_refuses_the_adapter_from_then_on(
    servers: Fleet, inference: RunningService, registry: Registry, make_adapter: Callable[..., Made], domain: str
) -> None:
    adapter = await registry.describe(make_adapter(seed=1), domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.family)
    client = await servers.connect_nats("registry")
    try:
        jetstream = client.jetstream(timeout=5)

        async def alone() -> bool:
            return await reached(jetstream, 0, seconds=0.5) == Reached(("replica-of-the-test",), ())

        await eventually(alone)  # positions of other tests' replicas go after five seconds
        await registry.deactivate(adapter)
        fact = await jetstream.get_last_msg(FACTS.name, row_of(AdapterDeactivated).subject, direct=True)
        found = await reached(jetstream, fact.seq or 0, seconds=5)
        assert found.applied == ("replica-of-the-test",)
        assert found.pending == ()
        refused = await chat(inference.client, adapter.family)
        assert refused.status_code in {404, 409}, refused.text
        later = await reached(jetstream, (fact.seq or 0) + 1, seconds=0.5)
        assert later.pending == ("replica-of-the-test",)
    finally:
        await client.close()
