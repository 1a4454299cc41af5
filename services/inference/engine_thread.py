"""The one thread that owns the engine: it steps batches, and between steps does what others ask of the engine.

Requests wait in one queue. Up to `rows` are decoded together, base rows and rows of any adapters mixed; a
request that arrives while others run joins them at the next step boundary.
"""

import asyncio
import os
import signal
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import structlog

from services.inference import metrics
from services.inference.engine_batch import Running, Starts
from services.inference.engine_rows import Broken, Delivery, Finished, FinishReason, Row, Token, deliveries
from services.inference.errors import Busy, ServerFault

if TYPE_CHECKING:
    from lora_core.sampling import Request

__all__ = ["EngineThread", "FinishReason", "Finished", "Stream", "Token"]

log = structlog.get_logger()
T = TypeVar("T")
Stream = AbstractAsyncContextManager[AsyncIterator[Token | Finished]]
"""See `EngineThread.generate`."""
RETRY_AFTER = 2.0

GATHER = 0.001
"""Seconds in which an idle engine waits for requests that come together; as long again while more of them come."""
MOST_GATHERS = 5


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """Something to do between two steps, and who waits for it."""

    function: Callable[[], T]
    future: "Future[T]"

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.function())
        except BaseException as error:  # the caller gets it, of any class
            self.future.set_exception(error)

    def refuse(self, error: BaseException) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class EngineThread:
    """Runs the engine. `rows` decode at once, `queue_limit` may wait; `died` is called where an error ends it.

    begin: called once, in the thread, before anything else.
    """

    def __init__(
        self,
        engine: Starts,
        rows: int,
        queue_limit: int,
        died: Callable[[], None] = _end_process,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._died, self._on_begin = died, begin
        self.rows = rows
        self._queue_limit = queue_limit
        self._wake = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._calls: deque[Call[Any]] = deque()
        self._running: Running | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def load(self) -> tuple[int, int]:
        """(rows running, requests waiting), as of now."""
        running = self._running
        return 0 if running is None else len(running.rows), len(self._waiting)

    async def call(self, function: Callable[[], T]) -> T:
        """Runs a function in the engine's thread, between two steps."""
        call = Call(function, Future())
        with self._wake:
            if self._closed:
                raise Busy("the server is stopping", code="stopping", retry_after=RETRY_AFTER)
            self._calls.append(call)
            self._wake.notify()
        return await asyncio.wrap_future(call.future)

    @asynccontextmanager
    async def generate(self, request: "Request") -> AsyncIterator[AsyncIterator[Token | Finished]]:
        """Tokens as they come, ended by `Finished`. Leaving the context early cancels the rest.

        Raises:
            Busy: too many requests wait already.
        """
        with self.together([request]) as (stream,):
            async with stream as tokens:
                yield tokens

    @contextmanager
    def together(self, requests: "Sequence[Request]") -> Iterator[Sequence[Stream]]:
        """For each request what `generate` gives; the first that is entered hands all of them to the engine.

        Those that have the same prompt and adapter then have it read once. Leaving the context cancels them all.
        """
        rows: list[Row] = []

        @asynccontextmanager
        async def stream(at: int) -> AsyncIterator[AsyncIterator[Token | Finished]]:
            if not rows:
                rows.extend(self._enqueue(requests))
            try:
                yield deliveries(rows[at])
            finally:
                self._cancel(rows[at : at + 1])

        try:
            yield [stream(at) for at in range(len(requests))]
        finally:
            self._cancel(rows)

    def _enqueue(self, requests: "Sequence[Request]") -> list[Row]:
        with self._wake:
            if self._closed or len(self._waiting) >= self._queue_limit:
                raise Busy(
                    f"{len(self._waiting)} requests are waiting already; try again.",
                    code="queue_full",
                    retry_after=RETRY_AFTER,
                )
            rows = [Row(request) for request in requests]
            self._waiting.extend(rows)
            self._wake.notify()
        return rows

    def _cancel(self, rows: Sequence[Row]) -> None:
        with self._wake:
            for row in rows:
                row.cancelled = True

    async def close(self) -> None:
        """Stop at the next step boundary; running requests get an error."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            self._on_begin()
            while self._wait():
                # Cancelled rows give their slots back before anything is loaded into them.
                self._drop_cancelled()
                while self._calls:
                    self._calls.popleft().run()
                self._begin()
                if self._running is not None:
                    self._step(self._running)
        except BaseException as error:
            log.exception("engine_thread_died")
            self._abort(error)
            self._died()
            raise
        self._abort(ServerFault("the server is stopping", code="stopping"))

    def _wait(self) -> bool:
        with self._wake:
            while not (self._closed or self._calls or self._waiting or self._running):
                self._wake.wait()
            return not self._closed

    def _begin(self) -> None:
        if not self._waiting:
            return
        if self._running is None:
            self._gather()
        free = self.rows - (len(self._running.rows) if self._running else 0)
        rows: list[Row] = []
        with self._wake:
            while self._waiting and len(rows) < free:
                row = self._waiting.popleft()
                if not row.cancelled:
                    metrics.QUEUE_SECONDS.observe(time.monotonic() - row.arrived)
                    rows.append(row)
        if not rows:
            return
        try:
            self._join(rows)
        except Exception:
            # One of them cannot start, and which one is not known: each begins by itself.
            for row in rows:
                try:
                    self._join([row])
                except Exception as error:
                    self._lose(row, error, "start")

    def _gather(self) -> None:
        """Requests that come together start together, and one that comes alone waits for no others."""
        seen, waits = 0, 0
        while seen < len(self._waiting) < self.rows and waits < MOST_GATHERS:
            seen, waits = len(self._waiting), waits + 1
            time.sleep(GATHER)

    def _join(self, rows: list[Row]) -> None:
        requests = [row.request for row in rows]
        if self._running is None:
            self._running = Running(self._engine.start(requests), dict(enumerate(rows)))
        else:
            self._running.rows |= zip(self._running.batch.add(requests), rows, strict=True)

    def _lose(self, row: Row, error: Exception, step: Literal["start", "step"]) -> None:
        """End one request with an error; the others continue."""
        metrics.ROWS_FAILED.labels(step).inc()
        log.error("row_failed", step=step, reason=repr(error))
        self._deliver([(row, Broken(error))])

    def _drop_cancelled(self) -> None:
        if self._running is None:
            return
        for index, row in list(self._running.rows.items()):
            if row.cancelled:
                self._running.batch.cancel(index)
                del self._running.rows[index]
        if not self._running.rows:
            self._running = None

    def _step(self, running: Running) -> None:
        try:
            produced = list(running.batch.step())
        except Exception as error:  # a row's fault ends that row alone, see lora_core.batch: this is the engine's own
            log.exception("step_failed", rows=len(running.rows))
            metrics.ROWS_FAILED.labels("engine").inc(len(running.rows))
            running.batch.close()
            self._deliver([(row, Broken(error)) for row in running.rows.values()])
            self._running = None
            return
        delivered: list[tuple[Row, Delivery]] = [
            (running.rows[index], Token(token_id, logprob, running.batch.alternatives(index)))
            for index, token_id, logprob in produced
        ]
        for index, row in list(running.rows.items()):
            reason = running.batch.finish_reason(index)
            if reason is None or reason == "cancelled":
                continue
            if reason == "failed":
                self._lose(row, running.batch.fault(index) or RuntimeError("failed without a reason"), "step")
            else:
                delivered.append((row, Finished(reason)))
            del running.rows[index]
        if not running.rows:
            self._running = None
        self._deliver(delivered)

    def _deliver(self, delivered: list[tuple[Row, Delivery]]) -> None:
        def put() -> None:
            for row, delivery in delivered:
                row.deliveries.put_nowait(delivery)

        if delivered:
            self._loop.call_soon_threadsafe(put)

    def _abort(self, error: BaseException) -> None:
        with self._wake:
            self._closed = True
            rows = [*self._waiting, *(self._running.rows.values() if self._running else ())]
            self._waiting.clear()
            calls = list(self._calls)
            self._calls.clear()
        if self._running is not None:
            self._running.batch.close()
        self._running = None
        self._deliver([(row, Broken(error)) for row in rows])
        for call in calls:
            call.refuse(error)
