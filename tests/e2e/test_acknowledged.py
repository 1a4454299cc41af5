"""What the bus acknowledged takes effect once: with two replicas on the same durables, and over a full disk."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_cli.stack import Fleet
from fleet_cli.stack.ports import choose
from fleet_cli.stack.single import SingleService
from fleet_kit.cloudevents import seal
from tests.e2e.acknowledged import Publisher, all_took_effect_once, connected, facts
from tests.small_disk import mounted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
SERVICES = ("registry", "trainer")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.heavy
async def test_two_registries_on_the_same_durables_take_each_event_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fleet(home) as fleet:
        await asyncio.to_thread(fleet.start, SERVICES)
        port = str(choose(("registry",), {})["registry"])
        second = SingleService(
            "registry",
            {**fleet.part("registry").command.environment, "LORAFLEET_PORT": port},
            logs=fleet.home.logs,
            run=fleet.home.run,
        )
        await asyncio.to_thread(second.start)
        try:
            async with connected(fleet) as client:
                publisher = Publisher(client)
                for number in range(500):
                    for source, event in facts(number, "pair"):
                        await publisher.publish(source, event)
                await all_took_effect_once(fleet, "pair", publisher.acknowledged, 60)
                with capsys.disabled():
                    print(f"two registries, once each: {dict(publisher.acknowledged)}")
        finally:
            await asyncio.to_thread(second.stop)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", mebibytes=48) as folder:
        yield folder


@pytest.mark.heavy
async def test_a_full_disk_under_the_bus_keeps_what_was_acknowledged_and_takes_more_once_there_is_room(
    home: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fleet(home) as fleet:
        (home / "nats").mkdir(parents=True, mode=0o700)
        (home / "nats" / "jetstream").symlink_to(small_disk)
        await asyncio.to_thread(fleet.start, SERVICES)
        async with connected(fleet) as client:
            publisher = Publisher(client)
            ballast = small_disk / "ballast"
            with ballast.open("wb") as file:
                free = os.statvfs(small_disk)
                file.write(b"x" * (free.f_bavail * free.f_bsize - 256 * 1024))
            full_at = 0
            for number in range(2000):
                outgoing = [
                    (seal(event, service=source, entity="tests", trace={}), type(event).__name__)
                    for source, event in facts(number, "disk")
                ]
                try:
                    async with asyncio.timeout(3):
                        for one, name in outgoing:
                            await publisher.send(one, name)
                except TimeoutError:
                    full_at = number
                    break
            assert full_at, "the disk never filled"
            acknowledged = publisher.acknowledged.copy()
            ballast.unlink()
            for one, name in outgoing:  # those of the round that did not fit; the ids make repeats harmless
                await publisher.send(one, name)
            kept = Counter(dict.fromkeys(("SampleRecorded", "FeedbackRecorded", "GenerationCompleted"), full_at + 1))
            await all_took_effect_once(fleet, "disk", kept, 120)
            with capsys.disabled():
                print(f"{acknowledged.total()} acknowledged before the disk was full, all kept, and more after it")
