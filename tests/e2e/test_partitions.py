"""Links between every service and each server or service that it calls: cut, black hole or slow, while a loop runs.

One test a fault and service: each of its links is broken in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fleet_cli.stack import Fleet
from fleet_cli.stack.models import BASE_MODEL_NAME
from fleet_events.topology import CONSOLE, KEEPING_OBJECTS, SERVICES, STORING
from tests.faulty_links import Fault, Link, Links
from tests.integration.inference.conftest import tiny_copy

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]

CALLED = {
    "inference": ("router",),
    "evaluator": ("inference",),
    "trainer": ("inference",),
    CONSOLE: tuple(name for name in SERVICES if name != CONSOLE),
}
"""Service → the services that it calls over HTTP."""
FAULTY_SECONDS = 6.0
READY_SECONDS = 30.0
"""In which every service is ready again once the cause is gone."""


def targets(service: str) -> tuple[str, ...]:
    """What a service connects to."""
    stores = ("postgres",) * (service in STORING) + ("s3",) * (service in KEEPING_OBJECTS)
    return ("nats", *stores, *CALLED.get(service, ()))


@dataclass(frozen=True)
class Linked:
    """A fleet, and its links by (service, what it connects to)."""

    fleet: Fleet
    links: dict[tuple[str, str], Link]


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Iterator[Linked]:
    """A whole fleet of a tiny base model, each connection of which goes through a link of its own."""
    folder = tmp_path_factory.mktemp("partitions")
    tiny_copy(folder / "models" / BASE_MODEL_NAME, base_model, seed=7, intermediate_size=96)
    with pytest.MonkeyPatch.context() as patch, Links() as links, Fleet(folder / "home") as stack:
        patch.setenv("LORAFLEET_MODELS", str(folder / "models"))
        patch.setenv("LORAFLEET_MAX_TOKENS", "16")
        patch.setenv("LORAFLEET_LEASE_SECONDS", "4")
        stack.start()
        made: dict[tuple[str, str], Link] = {}
        for service in SERVICES:
            part = stack.part(service)
            environment = dict(part.command.environment)
            for target in targets(service):
                link = made[service, target] = links.to(stack.ports[target])
                environment = {name: link.address(value) for name, value in environment.items()}
            environment["LORAFLEET_PORT"] = str(stack.ports[service])
            part.command = replace(part.command, environment=environment)
            stack.restart(service)
        yield Linked(stack, made)


@pytest.fixture(scope="module")
def fleet(linked: Linked) -> Fleet:
    """What `new_loop` runs on."""
    return linked.fleet


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("fault", Fault)
async def test_a_broken_link_of_a_service_changes_nothing_in_the_end_and_heals_by_itself(
    linked: Linked, new_loop: Callable[[str], Any], service: str, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    async with new_loop(f"link-{service}-{fault.name.lower().replace('_', '-')}") as loop:
        await loop.request()
        healed_after: dict[str, float] = {}
        for target in targets(service):
            link = linked.links[service, target]
            link.breaks(fault)
            asked = asyncio.create_task(routed(loop)) if (service, target) == ("inference", "router") else None
            await asyncio.sleep(FAULTY_SECONDS)
            link.heals()
            healed = time.monotonic()
            await asyncio.to_thread(linked.fleet.wait_ready, READY_SECONDS)
            healed_after[target] = round(time.monotonic() - healed, 1)
            if asked is not None:
                assert await asked in {200, 503}
        await loop.finished_once()
        assert await loop.dead_letters() == 0
        with capsys.disabled():
            print(f"{service}, {fault.value}: ready again after {healed_after} s")


async def routed(loop: Any) -> int:
    """The status of a question whose model the router is to choose."""
    return int((await asyncio.wait_for(loop.ask("auto"), 30)).status_code)
