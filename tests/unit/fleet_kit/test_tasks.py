import asyncio

import pytest

from fleet_kit import tasks

pytestmark = pytest.mark.unit


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_AGAIN_AFTER", 0.01)
    cancellations = 0

    async def stubborn() -> None:
        nonlocal cancellations
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancellations += 1
                if cancellations == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.end(task)
    assert task.cancelled()


async def test_ends_take_tasks_that_failed_ended_or_never_began() -> None:
    async def fail() -> None:
        raise ValueError("seen by nobody")

    failed, quiet = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.sleep(0.01)
    fresh = asyncio.create_task(asyncio.sleep(60))
    async with asyncio.timeout(5):
        await tasks.end(failed, quiet, fresh)
        await tasks.end()
    assert fresh.cancelled()
