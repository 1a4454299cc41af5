"""`Precedence`: online answers go before lines of batches, at rows of the engine and at slots of adapters.

Lines have a bounded share of their own: one that has waited for long has a turn, in which it is an online answer.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar

from prometheus_client import Counter as Metric

TURNS = Metric("lorafleet_inference_batch_turns_total", "Lines of batches that took an online request's place")

PATIENCE = 0.05
"""Seconds that an online answer waits for its adapters before all lines leave theirs."""


class Aside:
    """A line that is being answered; it is interrupted by cancelling its task, and begun again later."""

    def __init__(self, since: float | None = None) -> None:
        """since: on the monotonic clock, when it was first to be begun; now, unless given."""
        self.since = time.monotonic() if since is None else since
        self.interrupted = False
        self.has_turn = False
        """It is not interrupted, and waits for nobody that came later."""
        self.task: asyncio.Task[object] | None = None

    def interrupt(self) -> None:
        """End this attempt."""
        if self.task is not None and not self.interrupted and not self.has_turn:
            self.interrupted = True
            self.task.cancel()


_ASIDE: ContextVar[Aside | None] = ContextVar("aside", default=None)
"""The line that the current task answers; None: an online request."""


class Precedence:
    """Counts answers under way, by base model. A line begins one only while no online answer waits and a row is free;
    where an online answer then finds no row, or no adapter, lines are interrupted for it, the latest first.

    turn_seconds: so long a line waits, and so long after the last turn, until it has one; 0: no line ever has. One line
    has a turn at a time, so online answers miss one row at most.
    """

    def __init__(self, turn_seconds: float = 0.0) -> None:
        self._turn_seconds = turn_seconds
        self._turn: Aside | None = None
        self._last_turn = -math.inf
        self._online: Counter[str] = Counter()
        self._lines: dict[str, list[Aside]] = {}
        self._asides: set[Aside] = set()
        self._waiting = 0
        self._changed = asyncio.Event()

    @contextmanager
    def aside(self, line: Aside) -> Iterator[None]:
        """Within this context the current task answers a line."""
        token = _ASIDE.set(line)
        self._asides.add(line)
        try:
            yield
        finally:
            self._asides.discard(line)
            self.leave(line)
            _ASIDE.reset(token)

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Within this context an answer waits for its adapters."""
        if _ASIDE.get() is not None:
            yield
            return
        self._waiting += 1
        patience = asyncio.get_running_loop().call_later(PATIENCE, self._interrupt_all)
        try:
            yield
        finally:
            patience.cancel()
            self._waiting -= 1
            self._notify()

    @asynccontextmanager
    async def row(self, base_model: str, rows: int) -> AsyncIterator[None]:
        """Within this context an answer has one of the engine's rows; a line waits here until one is free."""
        if (line := _ASIDE.get()) is None:
            self._online[base_model] += 1
            self._make_room(base_model, rows)
            try:
                yield
            finally:
                self._online[base_model] -= 1
                self._notify()
            return
        lines = self._lines.setdefault(base_model, [])
        while self._waiting or self._online[base_model] + len(lines) >= rows:
            if self._takes_turn(line):
                break
            await self._change(line)
        lines.append(line)
        try:
            yield
        finally:
            lines.remove(line)
            self._notify()

    async def quiet(self, line: Aside) -> None:
        """Wait until no online answer waits for adapters, or it is the line's turn."""
        while self._waiting and not self._takes_turn(line):
            await self._change(line)

    def leave(self, line: Aside) -> None:
        """The line's turn, if it has one, is over."""
        if self._turn is line:
            self._turn, line.has_turn = None, False
            self._notify()

    def _takes_turn(self, line: Aside) -> bool:
        if not line.has_turn and self._turn is None and self._turn_seconds and time.monotonic() >= self._due(line):
            self._turn, self._last_turn, line.has_turn = line, time.monotonic(), True
            TURNS.inc()
        return line.has_turn

    def _due(self, line: Aside) -> float:
        return max(line.since, self._last_turn) + self._turn_seconds

    async def _change(self, line: Aside) -> None:
        """Wait for one, or until the line may have its turn."""
        left = self._due(line) - time.monotonic() if self._turn_seconds and self._turn is None else None
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._changed.wait()

    def _make_room(self, base_model: str, rows: int) -> None:
        lines = [one for one in self._lines.get(base_model, ()) if not one.interrupted]
        yielding = [one for one in lines if not one.has_turn]
        too_many = min(self._online[base_model] + len(lines) - rows, len(yielding))
        for line in yielding[len(yielding) - too_many :] if too_many > 0 else ():
            line.interrupt()

    def _interrupt_all(self) -> None:
        for line in list(self._asides):
            line.interrupt()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
