"""kill -9 at random moments, on real servers: what the bus acknowledged takes effect, and takes effect once.

`LORAFLEET_TEST_SECONDS` is how long the heavy run lasts, `LORAFLEET_TEST_SEED` what its moments follow from.
"""

import asyncio
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from nats.aio.client import Client

from fleet_cli.stack import Fleet
from fleet_cli.stack.ports import choose
from fleet_cli.stack.single import SingleService
from fleet_events import v1
from fleet_events.message import Event
from fleet_events.topology import DEAD_STREAM
from fleet_kit.cloudevents import Outgoing, seal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
SEED = int(os.environ.get("LORAFLEET_TEST_SEED", "7"))
SERVICES = ("registry", "trainer")
PARTS = ("nats", "postgres", "s3", *SERVICES)


def facts(number: int, domain: str) -> Iterator[tuple[str, Event]]:
    """A sample, a rating and an answer with this number; each may be counted in a table."""
    yield "upstream", v1.SampleRecorded(domain=domain, prompt=f"Question {number}?", completion=f"Answer {number}.")
    yield "upstream", v1.FeedbackRecorded(generation_id=f"{domain}-{number}", domain=domain, rating=4, by="tests")
    yield (
        "inference",
        v1.GenerationCompleted(
            generation_id=f"{domain}-{number}",
            base_model=domain,
            prompt_tokens=3,
            completion_tokens=5,
        ),
    )


class Publisher:
    """Publishes until JetStream acknowledges; each event has one id, however often it is sent."""

    def __init__(self, client: Client) -> None:
        self._jetstream = client.jetstream(timeout=2)
        self.acknowledged = Counter[str]()

    async def publish(self, source: str, event: Event) -> None:
        await self.send(seal(event, service=source, entity="tests", trace={}), type(event).__name__)

    async def send(self, outgoing: Outgoing, name: str) -> None:
        while True:
            try:
                await self._jetstream.publish(outgoing.subject, outgoing.body, headers=outgoing.headers)
            except Exception:  # the server is being killed: nats-py raises many unrelated classes
                await asyncio.sleep(0.2)
            else:
                self.acknowledged[name] += 1
                return


async def effects(url: str, domain: str) -> Counter[str]:
    """How many of the events took effect, by class."""
    connection = await asyncpg.connect(url)
    try:
        return Counter(
            SampleRecorded=await connection.fetchval("select count(*) from trainer.samples where domain = $1", domain),
            FeedbackRecorded=await connection.fetchval(
                "select count(*) from registry.feedback where domain = $1", domain
            ),
            # Added up, not counted: an answer that took effect twice shows.
            GenerationCompleted=await connection.fetchval(
                "select coalesce(sum(completion_tokens), 0)::bigint / 5 from registry.usage where base_model = $1",
                domain,
            ),
        )
    finally:
        await connection.close()


async def all_took_effect_once(fleet: Fleet, domain: str, wanted: Counter[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    seen = Counter[str]()
    while time.monotonic() < deadline:
        try:
            seen = await effects(fleet.info.database_admin_url, domain)
        except (OSError, asyncpg.PostgresError):
            seen = Counter()
        if seen == wanted:
            break
        await asyncio.sleep(0.5)
    await asyncio.sleep(2)  # what comes twice would come now
    assert await effects(fleet.info.database_admin_url, domain) == wanted, f"last seen {seen}"


@asynccontextmanager
async def connected(fleet: Fleet) -> AsyncIterator[Client]:
    client = await fleet.connect_nats("admin")
    try:
        yield client
    finally:
        await client.close()


async def kill_until(fleet: Fleet, deadline: float, chance: random.Random) -> Counter[str]:
    """Kill a random part every second or two until the deadline."""
    kills = Counter[str]()
    while time.monotonic() < deadline:
        await asyncio.sleep(chance.uniform(0.5, 2.5))
        part = chance.choice(PARTS)
        if fleet.part(part).pid is not None:  # else it is still starting from its last kill
            await asyncio.to_thread(fleet.kill, part)
            kills[part] += 1
    return kills


async def publish_until(publisher: Publisher, deadline: float, domain: str) -> None:
    number = 0
    while time.monotonic() < deadline:
        await asyncio.gather(*(publisher.publish(source, event) for source, event in facts(number, domain)))
        number += 1
        await asyncio.sleep(0.02)


async def survive(fleet: Fleet, seconds: float, domain: str, report: Callable[[str], None]) -> None:
    deadline = time.monotonic() + seconds
    async with connected(fleet) as client:
        publisher = Publisher(client)
        kills, _ = await asyncio.gather(
            kill_until(fleet, deadline, random.Random(SEED)), publish_until(publisher, deadline, domain)
        )
        await asyncio.to_thread(fleet.wait_ready, 120)
        await all_took_effect_once(fleet, domain, publisher.acknowledged, 120)
        dead = (await client.jetstream().stream_info(DEAD_STREAM)).state.messages
        report(f"{kills.total()} kills {dict(kills)}; once each: {dict(publisher.acknowledged)}; {dead} dead letters")
        assert dead == 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.heavy
async def test_services_and_servers_killed_at_random_lose_and_double_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(line: str) -> None:
        with capsys.disabled():
            print(line)

    with Fleet(home) as fleet:
        await asyncio.to_thread(fleet.start, SERVICES)
        await survive(fleet, float(os.environ.get("LORAFLEET_TEST_SECONDS", "300")), "kills", report)


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
    """A file system of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


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
