"""Events that an upstream system publishes until the bus acknowledges them, and what each has done in the databases."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import asyncpg
from nats.aio.client import Client

from fleet_cli.stack import Fleet
from fleet_cli.stack.errors import PartFailed
from fleet_events import v1
from fleet_events.message import Event
from fleet_kit.cloudevents import Outgoing, seal


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


async def settled_effects(fleet: Fleet, domain: str, wanted: Counter[str], seconds: float) -> Counter[str]:
    """The effects a moment after they were those that are wanted, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError, asyncpg.PostgresError):  # the database may be starting
            if await effects(fleet.info.database_admin_url, domain) == wanted:
                break
        await asyncio.sleep(0.5)
    await asyncio.sleep(2)  # what comes twice would come now
    return await effects(fleet.info.database_admin_url, domain)


async def all_took_effect_once(fleet: Fleet, domain: str, wanted: Counter[str], seconds: float) -> None:
    assert await settled_effects(fleet, domain, wanted, seconds) == wanted


@asynccontextmanager
async def connected(fleet: Fleet) -> AsyncIterator[Client]:
    client = await fleet.connect_nats("admin")
    try:
        yield client
    finally:
        await client.close()


async def ready_in_the_end(fleet: Fleet, seconds: float) -> None:
    """Wait for every part. A part killed five times looks like one that never starts: it is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await asyncio.to_thread(fleet.wait_ready, max(1.0, deadline - time.monotonic()))
        except PartFailed:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
