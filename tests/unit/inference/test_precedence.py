"""Lines of batches never keep an online answer waiting: they begin in free rows and leave them."""

from __future__ import annotations

import asyncio
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

    def start(self, name: str) -> Aside:
        aside = self.asides[name] = Aside()
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
async def lines(rows: int) -> AsyncIterator[Lines]:
    running = Lines(Precedence(), rows)
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
            quiet = asyncio.create_task(running.precedence.quiet())
            await settle()
            assert not quiet.done()
        await quiet
        await settle()
        assert running.at_rows == ["second"]
