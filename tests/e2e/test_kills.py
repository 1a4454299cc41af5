"""kill -9 at each step of the loop: it ends by itself in the same final state, every effect once."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from fleet_events import v1

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


async def mid_training(loop) -> bool:
    job = await loop.job()
    return job["state"] == "running" and job.get("step", 0) >= 4


async def mid_judging(loop) -> bool:
    found = (await loop.get("evaluator", f"/v1/evaluations?adapter_id={loop.adapter_id}"))["evaluations"]
    # Few samples are soon judged: one that has just ended counts, or a quick machine would wait for ever.
    return bool(found) and found[0]["state"] in {"running", "scored"}


async def loading(loop) -> bool:
    return bool(await loop.events(v1.AdapterRegistered))


async def activating(loop) -> bool:
    return bool(await loop.events(v1.EvaluationScored))


STEPS_OF_THE_LOOP = [
    ("trainer", mid_training),
    ("inference", loading),
    ("evaluator", mid_judging),
    ("registry", activating),
    ("router", activating),
]


@pytest.mark.heavy  # each service is killed in tests/integration/<service>, too
async def test_every_service_killed_at_its_own_step_of_one_loop_changes_nothing_in_the_end(new_loop) -> None:
    async with new_loop("kill-all") as loop:
        await loop.request()
        for service, moment in STEPS_OF_THE_LOOP:
            await loop.until(lambda moment=moment: moment(loop), 180)
            await asyncio.to_thread(loop.fleet.kill, service)
        await loop.finished_once()
        started = await loop.events(v1.TrainingStarted)
        assert [event.attempt for event in started] == [1, 2]
        assert started[1].resumed_step >= 3
        assert await loop.dead_letters() == 0


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("service", "moment"),
    STEPS_OF_THE_LOOP,
)
async def test_a_service_killed_on_the_way_changes_nothing_in_the_end(
    new_loop, service: str, moment: Callable[..., Awaitable[bool]]
) -> None:
    async with new_loop(f"kill-{service}") as loop:
        await loop.request()
        await loop.until(lambda: moment(loop), 180)
        await asyncio.to_thread(loop.fleet.kill, service)
        await loop.finished_once()
        assert (await loop.job())["attempts"] == (2 if service == "trainer" else 1)


@pytest.mark.heavy  # tests/integration/registry/test_survival.py proves the same of the registry alone
async def test_a_registry_killed_between_its_state_and_its_event_says_it_after_restart(new_loop) -> None:
    async with new_loop("held-relay") as loop:
        # Whoever holds the relay's lock publishes. While this session has it the registry can commit and not publish.
        blocker = await asyncpg.connect(loop.fleet.info.database_admin_url)
        waiting = asyncio.create_task(blocker.fetchval("select pg_advisory_lock(hashtext($1))", "outbox:registry"))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(loop.fleet.restart, "registry")
        await waiting
        try:
            await loop.request()

            async def committed() -> bool:
                return await loop.adapter() is not None

            await loop.until(committed, 180)
            assert await loop.events(v1.AdapterRegistered) == []
            await asyncio.to_thread(loop.fleet.kill, "registry")
        finally:
            await blocker.close()
        await loop.finished_once()
