"""Lines of batches never keep an online answer waiting: they begin in free rows and leave them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from services.inference.precedence import Aside, Precedence

pytestmark = pytest.mark.unit


class Lines:
    """Tasks that answer lines until they are told that they are done."""

    def __init__(self, precedence: Precedence, rows: int) -> None:
        self.precedence, self.rows = precedence, rows
        self.at_rows: list[str] = []
        self.asides: dict[str, Aside] = {}
        self.done = asyncio.Event()

    def start(self, name: str, waited: float = 0.0) -> Aside:
        aside = self.asides[name] = Aside(time.monotonic() - waited)
        aside.task = asyncio.create_task(self._run(name, aside))
        return aside

    async def _run(self, name: str, aside: Aside) -> None:
        with self.precedence.aside(aside):
            async with self.precedence.row("tiny", self.rows):
                self.at_rows.append(name)
                try:
                    await self.done.wait()
                finally:
                    self.at_rows.remove(name)


@asynccontextmanager
async def lines(rows: int, turn_seconds: float = 0.0) -> AsyncIterator[Lines]:
    running = Lines(Precedence(turn_seconds), rows)
    yield running
    running.done.set()
    tasks = [one.task for one in running.asides.values() if one.task is not None]
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, return_exceptions=True)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_line_begins_only_in_a_row_that_online_answers_leave_free() -> None:
    async with lines(rows=2) as running, AsyncExitStack() as online:
        await online.enter_async_context(running.precedence.row("tiny", 2))
        first, second = running.start("first"), running.start("second")
        await settle()
        assert running.at_rows == ["first"]
        await online.aclose()
        await settle()
        assert running.at_rows == ["first", "second"]
        assert not first.interrupted
        assert not second.interrupted


async def test_an_online_answer_gets_its_row_at_once_and_the_latest_line_leaves_it() -> None:
    async with lines(rows=2) as running:
        first, second = running.start("first"), running.start("second")
        await settle()
        async with running.precedence.row("tiny", 2), running.precedence.row("other", 2):
            assert (first.interrupted, second.interrupted) == (False, True)
            await settle()
            assert running.at_rows == ["first"]
            async with running.precedence.row("tiny", 2):
                assert first.interrupted
                await settle()
                assert running.at_rows == []


async def test_no_line_begins_and_all_leave_while_an_online_answer_waits_for_its_adapter() -> None:
    async with lines(rows=4) as running:
        first = running.start("first")
        await settle()
        assert running.at_rows == ["first"]
        with running.precedence.waits():
            async with asyncio.timeout(5):
                await asyncio.gather(*[first.task] if first.task else [], return_exceptions=True)
            assert first.interrupted
            running.start("second")
            await settle()
            assert running.at_rows == []
            quiet = asyncio.create_task(running.precedence.quiet(Aside()))
            await settle()
            assert not quiet.done()
        await quiet
        await settle()
        assert running.at_rows == ["second"]


async def online_for_ever(precedence: Precedence, answered: list[int]) -> None:
    """Two answers for each of two rows, one after another: no row is ever free."""

    async def one() -> None:
        while True:
            async with precedence.row("tiny", 2):
                await asyncio.sleep(0)
                answered.append(1)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one())


async def test_a_steady_online_load_leaves_each_line_a_turn_after_its_time_and_one_line_at_a_time() -> None:
    async with lines(rows=2, turn_seconds=0.05) as running:
        answered: list[int] = []
        load = asyncio.create_task(online_for_ever(running.precedence, answered))
        await settle()
        began = time.monotonic()
        first, second = running.start("first"), running.start("second")
        async with asyncio.timeout(5):
            while not running.at_rows:
                await asyncio.sleep(0)
        assert time.monotonic() - began >= 0.05
        before = len(answered)
        async with asyncio.timeout(5):
            while time.monotonic() - began < 0.2:
                await asyncio.sleep(0)
        assert running.at_rows == ["first"]  # not interrupted, and the second has no turn beside it
        assert len(answered) > before
        running.done.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*(one.task for one in (first, second) if one.task))
        assert not first.interrupted
        load.cancel()


async def test_a_line_in_its_turn_keeps_its_row_and_its_adapter_and_others_do_not() -> None:
    async with lines(rows=2, turn_seconds=30.0) as running:
        async with AsyncExitStack() as online:
            for _ in range(2):
                await online.enter_async_context(running.precedence.row("tiny", 2))
            starved = running.start("starved", waited=31.0)
            await settle()
            assert running.at_rows == ["starved"]
        young = running.start("young")
        await settle()
        assert running.at_rows == ["starved", "young"]
        with running.precedence.waits():
            async with asyncio.timeout(5):
                await asyncio.gather(*[young.task] if young.task else [], return_exceptions=True)
            assert (starved.interrupted, young.interrupted) == (False, True)
            late = Aside(time.monotonic() - 31.0)
            quiet = asyncio.create_task(running.precedence.quiet(late))
            await settle()
            assert not quiet.done()  # the last turn is not so long ago
        await quiet
        assert running.at_rows == ["starved"]


async def test_without_turns_a_line_waits_for_as_long_as_online_answers_take_all_rows() -> None:
    async with lines(rows=1) as running, running.precedence.row("tiny", 1):
        running.start("old", waited=1e6)
        await settle()
        assert running.at_rows == []
