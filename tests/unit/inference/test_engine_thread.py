"""The engine's thread: queueing, mixing, cancelling and failing, with an engine whose steps the test counts."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from services.inference import metrics
from services.inference.engine_thread import EngineThread, Finished, Token
from services.inference.errors import Busy, ServerFault


@dataclass(frozen=True)
class Ask:
    """Stands where lora_core's Request stands: what the thread hands to the engine."""

    tokens: int
    first: int = 0
    broken: bool = False
    """The whole step fails with it."""
    faulty: bool = False
    """Its own row fails at its first step."""
    unfit: bool = False


@dataclass
class CountingBatch:
    """Row n answers first, first+1, …"""

    requests: list[Any]
    engine: "CountingEngine"
    joined: list[int] = field(default_factory=list)
    given: dict[int, int] = field(default_factory=dict)
    ended: dict[int, Literal["stop", "length", "cancelled", "failed"]] = field(default_factory=dict)

    def step(self) -> Iterable[tuple[int, int, float]]:
        self.engine.gate.wait(5)
        self.engine.steps += 1
        self.engine.most = max(self.engine.most, len(self.requests) - len(self.ended))
        produced = []
        for row, request in enumerate(self.requests):
            if row in self.ended:
                continue
            if request.broken:
                raise RuntimeError("the arithmetic failed")
            if request.faulty:
                self.ended[row] = "failed"
                continue
            count = self.given.get(row, 0)
            produced.append((row, request.first + count, -0.5))
            self.given[row] = count + 1
            if count + 1 == request.tokens:
                self.ended[row] = "length"
        return produced

    def add(self, requests: Sequence[Any]) -> Sequence[int]:
        if any(request.unfit for request in requests):
            raise LookupError("no such adapter")
        self.joined.append(len(requests))
        self.requests += requests
        return range(len(self.requests) - len(requests), len(self.requests))

    def finish_reason(self, row: int) -> Literal["stop", "length", "cancelled", "failed"] | None:
        return self.ended.get(row)

    def fault(self, row: int) -> Exception | None:
        return ZeroDivisionError("of this row") if self.ended.get(row) == "failed" else None

    def alternatives(self, row: int) -> tuple[tuple[int, float], ...]:
        return ()

    def cancel(self, row: int) -> None:
        self.ended.setdefault(row, "cancelled")

    def close(self) -> None:
        for row in range(len(self.requests)):
            self.cancel(row)


class CountingEngine:
    def __init__(self) -> None:
        self.batches: list[CountingBatch] = []
        self.steps = 0
        self.most = 0  # rows of a step
        self.gate = threading.Event()
        self.gate.set()

    def start(self, requests: Sequence[Any]) -> CountingBatch:
        if any(request.unfit for request in requests):
            raise LookupError("no such adapter")
        self.batches.append(CountingBatch(list(requests), self))
        return self.batches[-1]


@asynccontextmanager
async def running(rows: int = 4, queue_limit: int = 10) -> AsyncIterator[tuple[EngineThread, CountingEngine]]:
    engine = CountingEngine()
    thread = EngineThread(engine, rows, queue_limit)
    try:
        yield thread, engine
    finally:
        engine.gate.set()
        await thread.close()


async def collect(thread: EngineThread, ask: Ask) -> list[int]:
    ids = []
    async with thread.generate(ask) as deliveries:  # type: ignore[arg-type]
        async for delivery in deliveries:
            match delivery:
                case Token(id=token_id):
                    ids.append(token_id)
                case Finished(reason=reason):
                    assert reason == "length"
    return ids


async def until_load(thread: EngineThread, running: int, waiting: int = 0) -> None:
    """Wait until so many rows run and so many requests wait."""
    async with asyncio.timeout(5):
        while thread.load != (running, waiting):
            await asyncio.sleep(0.001)


async def test_each_request_gets_its_own_tokens_however_many_there_are() -> None:
    async with running(rows=3, queue_limit=50) as (thread, engine):
        asks = [Ask(tokens=1 + n % 4, first=100 * n) for n in range(20)]
        got = await asyncio.gather(*(collect(thread, ask) for ask in asks))
        assert got == [list(range(ask.first, ask.first + ask.tokens)) for ask in asks]
        assert engine.most == 3


async def test_the_first_of_requests_that_belong_together_hands_all_of_them_over() -> None:
    async with running(rows=4) as (thread, engine):
        asks: list[Any] = [Ask(tokens=3, first=10 * n) for n in range(3)]
        with thread.together(asks) as streams:
            for number, stream in enumerate(streams):
                async with stream as deliveries:
                    got = [one.id async for one in deliveries if isinstance(one, Token)]
                assert got == [10 * number + at for at in range(3)]
        assert [batch.requests for batch in engine.batches] == [asks]


async def test_requests_that_belong_together_and_were_not_begun_are_cancelled_at_the_end() -> None:
    async with running() as (thread, engine):
        with thread.together([Ask(tokens=2), Ask(tokens=10**9)]) as (stream, _):  # type: ignore[list-item]
            async with stream as deliveries:
                async for _one in deliveries:
                    pass
        async with asyncio.timeout(5):
            while thread.load != (0, 0):
                await asyncio.sleep(0)
        assert list(engine.batches[0].ended.values()) == ["length", "cancelled"]


async def test_requests_that_wait_together_start_together() -> None:
    async with running(rows=4) as (thread, engine):
        engine.gate.clear()
        first = asyncio.create_task(collect(thread, Ask(1)))
        await until_load(thread, 1)
        rest = [asyncio.create_task(collect(thread, Ask(2))) for _ in range(3)]
        await until_load(thread, 1, 3)
        engine.gate.set()
        await asyncio.gather(first, *rest)
        assert [len(batch.requests) for batch in engine.batches] == [1, 3]


async def test_a_request_joins_while_a_long_one_runs() -> None:
    async with running(rows=2) as (thread, _):
        long = asyncio.create_task(collect(thread, Ask(tokens=10_000)))
        await until_load(thread, 1)
        assert await asyncio.wait_for(collect(thread, Ask(tokens=2, first=7)), 5) == [7, 8]
        assert not long.done()
        long.cancel()


async def test_requests_join_the_running_batch_at_its_next_step() -> None:
    async with running(rows=8) as (thread, engine):
        long = asyncio.create_task(collect(thread, Ask(tokens=10**9)))
        await until_load(thread, 1)
        for first in range(3):
            got = [asyncio.create_task(collect(thread, Ask(tokens=2, first=first))) for _ in range(3)]
            assert await asyncio.wait_for(asyncio.gather(*got), 2) == [[first, first + 1]] * 3
        assert len(engine.batches) == 1
        assert sum(engine.batches[0].joined) == 9
        long.cancel()


async def test_a_request_that_cannot_join_fails_alone() -> None:
    async with running() as (thread, _):
        long = asyncio.create_task(collect(thread, Ask(tokens=10**9)))
        await until_load(thread, 1)
        with pytest.raises(ServerFault):
            await collect(thread, Ask(1, unfit=True))
        assert await collect(thread, Ask(2)) == [0, 1]
        assert not long.done()
        long.cancel()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("fault", ["unfit", "faulty"])
async def test_requests_that_come_together_with_a_faulty_one_are_answered(busy: bool, fault: str) -> None:
    async with running(rows=6) as (thread, engine):
        engine.gate.clear()
        first = [asyncio.create_task(collect(thread, Ask(tokens=50)))] if busy else []
        await until_load(thread, int(busy))
        failed = metrics.ROWS_FAILED.labels("start" if fault == "unfit" else "step")
        before = failed._value.get()
        asks = [Ask(2, first=7), Ask(2, **{fault: True}), Ask(2, first=9)]
        tasks = [asyncio.create_task(collect(thread, ask)) for ask in asks]
        async with asyncio.timeout(5):  # until all three have come
            while sum(thread.load) + failed._value.get() - before < busy + len(asks):
                await asyncio.sleep(0.001)
        engine.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcomes[0], outcomes[2]] == [[7, 8], [9, 10]]
        assert isinstance(outcomes[1], ServerFault)
        assert failed._value.get() == before + 1
        assert await asyncio.gather(*first) == [list(range(50))] * busy


async def test_leaving_early_ends_the_row() -> None:
    async with running(rows=1) as (thread, engine):
        async with thread.generate(Ask(tokens=10**9)) as deliveries:  # type: ignore[arg-type]
            await anext(aiter(deliveries))
        assert await asyncio.wait_for(collect(thread, Ask(tokens=1)), 2) == [0]
        assert engine.batches[0].ended == {0: "cancelled"}


async def test_a_full_queue_refuses_at_once() -> None:
    async with running(rows=1, queue_limit=2) as (thread, engine):
        engine.gate.clear()
        tasks = [asyncio.create_task(collect(thread, Ask(1)))]
        await until_load(thread, 1)
        tasks += [asyncio.create_task(collect(thread, Ask(1))) for _ in range(2)]
        await until_load(thread, 1, 2)
        with pytest.raises(Busy) as caught:
            await collect(thread, Ask(1))
        assert caught.value.retry_after
        engine.gate.set()
        await asyncio.gather(*tasks)


async def test_a_failing_step_fails_its_requests_and_no_later_ones() -> None:
    async with running() as (thread, _):
        with pytest.raises(ServerFault):
            await collect(thread, Ask(1, broken=True))
        assert await collect(thread, Ask(2)) == [0, 1]


async def test_a_call_runs_in_the_engines_thread_between_steps_and_gives_back_its_error() -> None:
    async with running() as (thread, _):
        assert (await thread.call(threading.current_thread)).name == "engine"
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: 1 // 0)


async def test_a_cancelled_row_is_let_go_before_the_next_call_runs() -> None:
    async with running() as (thread, engine):
        async with thread.generate(Ask(tokens=10**9)) as deliveries:  # type: ignore[arg-type]
            await anext(aiter(deliveries))
        ended = await thread.call(lambda: dict(engine.batches[0].ended))
        assert ended == {0: "cancelled"}


async def test_stopping_tells_the_requests_that_run_and_wait() -> None:
    async with running(rows=1) as (thread, _):
        tasks = [asyncio.create_task(collect(thread, Ask(tokens=10**9))) for _ in range(2)]
        await until_load(thread, 1, 1)
        await thread.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, ServerFault) for one in outcomes)
        with pytest.raises(Busy):
            await collect(thread, Ask(1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_ends_its_requests_and_the_process() -> None:
    class Dead(BaseException):
        """Not what a request may be at fault for."""

    class DyingBatch(CountingBatch):
        def step(self) -> Iterable[tuple[int, int, float]]:
            raise Dead

    class DyingEngine(CountingEngine):
        def start(self, requests: Sequence[Any]) -> CountingBatch:
            return DyingBatch(list(requests), self)

    died = threading.Event()
    thread = EngineThread(DyingEngine(), rows=2, queue_limit=4, died=died.set)
    async with thread.generate(Ask(1)) as tokens:  # type: ignore[arg-type]
        with pytest.raises(ServerFault):
            async for _ in tokens:
                pass
    assert await asyncio.to_thread(died.wait, 5)
