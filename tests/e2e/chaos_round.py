"""One round of chaos: loops and facts under way, trouble meanwhile, and what is there in the end."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_events.topology import DEAD_STREAM
from tests.e2e.acknowledged import Publisher, connected, facts, ready_in_the_end, settled_effects
from tests.e2e.chaos_log import Round
from tests.e2e.conftest import Loop, open_loop

SERVICES = ("registry", "trainer", "evaluator", "router", "inference")
KILLS = dict.fromkeys(SERVICES, 4) | dict.fromkeys(("nats", "postgres", "s3"), 8)
"""Kills of each part in a round. Five workers in a row that disappear without progress are a job's end by rule."""
LOOPS = 3
BETWEEN_LOOPS = 8.0
"""Seconds between two requests: a round has loops in different steps at once."""
HYPERPARAMETERS = v1.Hyperparameters(rank=8, max_steps=40, batch_size=4, learning_rate=5e-3, checkpoint_steps=5, seed=7)


Trouble = Callable[[], Awaitable[Counter[str]]]
"""Makes trouble, ends it, and returns what it did how often."""


async def run_round(fleet: Fleet, name: str, expected: dict[str, Any], trouble: Trouble) -> Round:
    """Loops and facts while there is trouble. `expected` is the final state of a loop without any."""
    async with AsyncExitStack() as stack:
        loops = [await stack.enter_async_context(open_loop(fleet, f"{name}-{number}")) for number in range(LOOPS)]
        client = await stack.enter_async_context(connected(fleet))
        dead_before = (await client.jetstream().stream_info(DEAD_STREAM)).state.messages
        publisher, over = Publisher(client), asyncio.Event()
        publishing = asyncio.create_task(publish_until(publisher, over, name))
        requesting = asyncio.create_task(request_in_turn(loops))
        try:
            done = await trouble()
            await requesting
        finally:
            over.set()
            await publishing
        began = time.monotonic()
        await ready_in_the_end(fleet, 120)
        ready_after = time.monotonic() - began
        found = [await judged(loop, expected) for loop in loops]
        lost, duplicated = await difference(fleet, name, publisher.acknowledged)
        dead = (await client.jetstream().stream_info(DEAD_STREAM)).state.messages - dead_before
        notes = [note for _, _, _, note in found if note]
        if lost or duplicated:
            notes.append(f"of {dict(publisher.acknowledged)} facts {lost} lost, {duplicated} duplicated")
        if dead:
            notes.append(f"{dead} dead letters")
        return Round(
            name=name,
            kills=dict(done),
            facts=publisher.acknowledged.total(),
            loops=len(loops),
            lost=lost + dead + sum(one[0] for one in found),
            duplicated=duplicated + sum(one[1] for one in found),
            different=sum(one[2] for one in found),
            seconds_until_ready=round(ready_after, 1),
            notes=tuple(notes),
        )


async def undisturbed(fleet: Fleet, name: str) -> dict[str, Any]:
    """The final state of a loop without kills."""
    async with open_loop(fleet, name) as loop:
        await loop.request(hyperparameters=HYPERPARAMETERS)
        await loop.finished_once()
        return await final_state(loop)


async def publish_until(publisher: Publisher, over: asyncio.Event, domain: str) -> None:
    number = 0
    while not over.is_set():
        await asyncio.gather(*(publisher.publish(source, event) for source, event in facts(number, domain)))
        number += 1
        await asyncio.sleep(0.1)


async def request_in_turn(loops: list[Loop]) -> None:
    for number, loop in enumerate(loops):
        await asyncio.sleep(BETWEEN_LOOPS if number else 0)
        await loop.request(hyperparameters=HYPERPARAMETERS)


async def kill_all(fleet: Fleet, chance: random.Random, deadline: float) -> Counter[str]:
    """Kill each part as often as `KILLS` has it, in a random order at random moments, until the deadline."""
    waiting = list(Counter(KILLS).elements())
    chance.shuffle(waiting)
    killed = Counter[str]()
    while waiting and time.monotonic() < deadline:
        await asyncio.sleep(chance.uniform(0.2, 1.8))
        # Others are starting from their last kill: those that run may be in the middle of anything.
        running = next((part for part in waiting if fleet.part(part).pid is not None), None)
        if running is not None:
            waiting.remove(running)
            await asyncio.to_thread(fleet.kill, running)
            killed[running] += 1
    return killed


async def judged(loop: Loop, expected: dict[str, Any]) -> tuple[int, int, int, str]:
    """Events of a loop that are missing, those that are there again, 1 where its final state differs, and why."""
    try:
        await loop.until(loop.active, 240)
        await loop.until(loop.answers, 60)
    except AssertionError as error:
        return 0, 0, 1, f"{loop.domain}: {error}"
    counts = await loop.counted()
    lost = sum(1 for count in counts.values() if not count)
    duplicated = sum(count - 1 for count in counts.values() if count > 1)
    state = await final_state(loop)
    note = "" if set(counts.values()) == {1} else f"{loop.domain}: {counts} "
    if state != expected:
        note += f"{loop.domain}: {state}, expected {expected}"
    return lost, duplicated, int(state != expected), note


async def final_state(loop: Loop) -> dict[str, Any]:
    """What must be the same however a loop came to its end; the weights are, to the bit."""
    adapter = await loop.adapter() or {}
    versions = (await loop.get("registry", f"/v1/adapters?domain={loop.domain}"))["adapters"]
    evaluations = (await loop.get("evaluator", f"/v1/evaluations?adapter_id={loop.adapter_id}"))["evaluations"]
    completed = [one for one in await loop.events(v1.TrainingCompleted) if isinstance(one, v1.TrainingCompleted)]
    job = await loop.job()
    return {
        "job": [job["state"], job["step"]],
        "adapter": [adapter.get("status"), adapter.get("active")],
        "versions": len(versions),
        "evaluations": [[one["state"], one["done"]] for one in evaluations],
        "weights": [one.checkpoint.sha256 for one in completed],
    }


async def difference(fleet: Fleet, domain: str, acknowledged: Counter[str], seconds: float = 90.0) -> tuple[int, int]:
    """Facts without their effect, and effects beyond one each, once they are settled."""
    seen = await settled_effects(fleet, domain, acknowledged, seconds)
    return (acknowledged - seen).total(), (seen - acknowledged).total()
