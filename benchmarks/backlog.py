"""Answers that wait for the registry, and its memory while it works them off. A part of `benchmarks.backbone`."""

import asyncio
import time
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]
from nats.js import JetStreamContext

from benchmarks.report import Row
from fleet_cli.stack import Fleet
from fleet_cli.stack.environment import service_environment
from fleet_events import v1
from fleet_events.topology import SERVING
from fleet_kit.atomic_publishing import AtomicPublisher
from fleet_kit.cloudevents import Outgoing, seal

__all__ = ["backlog"]


def answer(number: int) -> Outgoing:
    """An answer of the base model, as inference publishes it."""
    event = v1.GenerationCompleted(
        generation_id=f"backlog-{number}",
        base_model="base",
        base_model_revision="0" * 64,
        requested_model="base",
        prompt_tokens=50,
        completion_tokens=20,
        latency_ms=100.0,
        finish_reason="stop",
        caller="benchmark",
    )
    return seal(event, service="inference", entity=event.generation_id, trace={})


async def fill(jetstream: JetStreamContext, events: int) -> None:
    """Publish answers that nobody consumes yet, with room for them."""
    config = (await jetstream.stream_info(SERVING.name)).config
    await jetstream.update_stream(config.evolve(max_bytes=max(config.max_bytes or 0, 2048 * events)))
    publisher = AtomicPublisher(jetstream)
    for first in range(0, events, 1000):
        batch = [answer(number) for number in range(first, min(first + 1000, events))]
        if await publisher.publish(SERVING.name, batch) is None:
            raise RuntimeError("the stream takes no batches")


async def backlog(fleet: Fleet, events: int) -> list[Row]:
    """Stop the registry, let answers wait, start it, and follow its memory until all are counted."""
    client = await fleet.connect_nats("admin")
    jetstream = client.jetstream()
    await asyncio.to_thread(fleet.stop_part, "registry")
    await fill(jetstream, events)
    env = service_environment("registry", fleet.home, fleet.ports, fleet.credentials, Path())
    database = await asyncpg.connect(env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "registry"})
    await asyncio.to_thread(fleet.start_part, "registry")
    process = psutil.Process(fleet.part("registry").pid)
    used: list[float] = []
    counted, began, since = 0, time.perf_counter(), 0
    while counted < events:
        await asyncio.sleep(0.25)
        counted = int(await database.fetchval("select coalesce(sum(answers), 0) from usage where base_model = 'base'"))
        if counted >= events // 10:
            if not used:
                began, since = time.perf_counter(), counted
            used.append(process.memory_full_info().pss / 2**20)
    seconds = time.perf_counter() - began
    kept = int(await database.fetchval("select count(*) from answer where generation_id like 'backlog-%'"))
    await database.close()
    await client.close()
    if (counted, kept) != (events, events):
        raise RuntimeError(f"{events} answers became {counted} counted and {kept} kept ones")
    what = f"a backlog of {events:,} GenerationCompleted"
    return [
        Row(what=f"{what}, counted and kept by the registry", unit="events/s", ours=(events - since) / seconds),
        Row(
            what=f"{what}: growth of the registry's memory from the first tenth on, at its peak",
            unit="MB",
            ours=max(used) - used[0],
            ask="under 20",
            met=max(used) - used[0] < 20,
            n=len(used),
            note=f"{used[0]:.0f} MB after the first tenth",
        ),
    ]
