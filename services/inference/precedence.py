"""`Precedence`: online answers go before lines of batches, at rows of the engine and at slots of adapters."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

PATIENCE = 0.05
"""Seconds that an online answer waits for its adapters before all lines leave theirs."""


class Aside:
    """A line that is being answered; it is interrupted by cancelling its task, and begun again later."""

    def __init__(self) -> None:
        self.interrupted = False
        self.task: asyncio.Task[object] | None = None

    def interrupt(self) -> None:
        """End this attempt."""
        if self.task is not None and not self.interrupted:
            self.interrupted = True
            self.task.cancel()


_ASIDE: ContextVar[Aside | None] = ContextVar("aside", default=None)
"""The line that the current task answers; None: an online request."""


class Precedence:
    """Counts answers under way, by base model. A line begins one only while no online answer waits and a row is free;
    where an online answer then finds no row, or no adapter, lines are interrupted for it, the latest first.
    """

    def __init__(self) -> None:
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
            await self._changed.wait()
        lines.append(line)
        try:
            yield
        finally:
            lines.remove(line)
            self._notify()

    async def quiet(self) -> None:
        """Wait until no online answer waits for adapters."""
        while self._waiting:
            await self._changed.wait()

    def _make_room(self, base_model: str, rows: int) -> None:
        lines = [one for one in self._lines.get(base_model, ()) if not one.interrupted]
        too_many = min(self._online[base_model] + len(lines) - rows, len(lines))
        for line in lines[len(lines) - too_many :] if too_many > 0 else ():
            line.interrupt()

    def _interrupt_all(self) -> None:
        for line in list(self._asides):
            line.interrupt()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
