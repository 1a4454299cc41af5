"""The client library as its users call it: every example of the documentation, on a real fleet."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet_cli.stack import Fleet
from lorafleet import BadInput, EventBus, FleetHome, events
from tests.conftest import RunningService, RunService

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "sdk.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
async def registry(run_service: RunService) -> AsyncIterator[RunningService]:
    async with run_service("registry") as running:
        yield running


@pytest.fixture
def home(servers: Fleet, module_database: str) -> FleetHome:
    return FleetHome(servers.home.root, {})


@pytest.mark.parametrize(
    ("number", "shown"),
    enumerate((r"404 registry answered 404", r"\d+ versions, \d+ callers", r"stored as message \d+", r"\+00:00 shop")),
)
async def test_every_example_of_the_client_library_runs(
    servers: Fleet, registry: RunningService, number: int, shown: str
) -> None:
    environment = os.environ | {"LORAFLEET_HOME": str(servers.home.root), "LORAFLEET_REGISTRY_URL": registry.url}
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", EXAMPLES[number]], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(shown, ran.stdout), ran.stdout
    assert len(EXAMPLES) == 4


async def test_what_only_the_fleet_publishes_is_refused_with_what_may_be_published(home: FleetHome) -> None:
    async with EventBus(home) as bus:
        with pytest.raises(
            BadInput, match=r"only the fleet itself publishes Approved; upstream systems may publish .*SampleRecorded"
        ):
            await bus.publish(events.Approved.model_construct())


async def test_a_follower_of_one_type_gets_that_one_alone_and_ends_where_nothing_is_waited_for(home: FleetHome) -> None:
    async with EventBus(home, user="admin") as bus:
        before = await bus.position()
        await bus.publish(events.TrainingRequested(domain="shop"))
        await bus.publish(events.SampleRecorded(domain="shop", prompt="a", completion="b"))
        followed = [one.event async for one in bus.follow(events.SampleRecorded, after=before, wait=False)]
    assert [type(one) for one in followed] == [events.SampleRecorded]
