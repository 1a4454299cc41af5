"""What takes messages from a durable of short work: many at a time."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog
from nats.js import JetStreamContext

from fleet_kit import tasks
from fleet_kit.delivery import Dispatcher
from fleet_kit.handlers import Binding
from fleet_kit.pull import Pull
from fleet_kit.together import HOLD_SECONDS, Together

__all__ = ["Intake"]

log = structlog.get_logger()

GRACE = 5.0
"""Seconds that the events under way have to end when the service stops; then others get them."""


class Intake:
    """One durable of short work in one process: wait for its turn, pull, handle together, again."""

    def __init__(
        self,
        jetstream: JetStreamContext,
        dispatcher: Dispatcher,
        binding: Binding,
        *,
        inbox: str,
        turn: Callable[[], AbstractAsyncContextManager[object]],
    ) -> None:
        """`inbox` is the prefix of this user's reply subjects; within `turn` this process may take messages."""
        client = jetstream._nc  # nats-py has no public way from JetStream to its client
        self._pull = Pull(client, binding.row.stream.name, binding.durable, inbox)
        self._turn = turn
        self._together = Together(dispatcher, binding)
        self._durable, self._workers = binding.durable, binding.consumer.workers
        self._task: asyncio.Task[None] | None = None
        self._waiting = self._stopping = False

    async def start(self) -> None:
        """Begin to take messages."""
        await self._pull.open()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Take no more, and end with what is under way."""
        self._stopping = True
        await self._pull.close()
        if self._task is not None:
            if not self._waiting:
                await asyncio.wait((self._task,), timeout=GRACE)
            await tasks.end(self._task)

    async def _run(self) -> None:
        size = self._workers
        while not self._stopping:
            self._waiting = True
            async with self._turn():
                self._waiting = False
                size = await self._round(size)
                while self._pull.unfinished:  # what another replica would have to wait for
                    size = await self._round(size)

    async def _round(self, size: int) -> int:
        """Take up to `size` messages and handle them; returns how many to take next."""
        messages = await self._pull.next(size)
        if not messages:
            return size
        started = time.perf_counter()
        try:
            await self._together.deliver(messages)
        except Exception:
            # A defect of ours. What is unanswered comes again; nothing else would take this durable's messages.
            log.exception("intake_failed", consumer=self._durable)
            await asyncio.sleep(1)
        # What takes long is left to other replicas; of what does not, more is taken at once.
        if time.perf_counter() - started > HOLD_SECONDS:
            return max(self._workers, size // 2)
        return min(2 * size, self._together.most) if len(messages) == size else size
