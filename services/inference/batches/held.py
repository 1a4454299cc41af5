"""`HeldBatch`: a batch that this process runs, for as long as it writes so."""

import asyncio
import time
from collections.abc import Callable

import structlog

from fleet_kit.faults import describe
from services.inference.batches.records import BatchRecord
from services.inference.batches.store import BatchStore, Kept
from services.inference.errors import NotFound
from services.inference.recording.recorder import AWAY

log = structlog.get_logger()
BEATS = 4
"""Writes within the time of a lease."""


class LeaseLost(Exception):
    """Another process runs the batch, or may by now; or it was erased."""


class HeldBatch:
    """Its record, written by this process and by those that cancel it.

    stopped: set once it is to be ended though lines are left: it is being cancelled, or its window has
    ended, or it is given up. erased: there is no record any more, since its owner was forgotten.
    """

    def __init__(self, store: BatchStore, kept: Kept, holder: str, lease: float) -> None:
        self._store = store
        self._kept = kept
        self._holder = holder
        self._lease = lease
        self._writing = asyncio.Lock()
        self._written_at = time.monotonic()
        self.stopped = asyncio.Event()
        self.erased = False
        self._look()

    @property
    def batch(self) -> BatchRecord:
        """As of the last write."""
        return self._kept.batch

    async def change(self, to: Callable[[BatchRecord], BatchRecord]) -> BatchRecord:
        """Write what the record becomes.

        Raises:
            LeaseLost: another process holds it; and what the bus raises.
        """

        def owned(batch: BatchRecord) -> BatchRecord:
            if batch.holder != self._holder:
                raise LeaseLost(batch.id)
            return to(batch)

        async with self._writing:
            try:
                self._kept = await self._store.change(self._kept, owned)
            except NotFound as error:
                # Its parts went with it, but for what this process has stored since.
                self.erased = True
                await self._store.drop(await self._store.parts(self.batch))
                raise LeaseLost(self.batch.id) from error
            self._written_at = time.monotonic()
        self._look()
        return self.batch

    async def beat(self) -> None:
        """Write that this process runs it; raises as `change`."""
        await self.change(lambda batch: batch.model_copy(update={"beat": batch.beat + 1}))

    async def keep(self) -> None:
        """Write again and again, until the batch has ended; raises `LeaseLost` once others may have it."""
        while True:
            await asyncio.sleep(self._lease / BEATS)
            try:
                await self.beat()
            except LeaseLost:
                if self.batch.ended:
                    return
                raise
            except AWAY as error:
                log.warning("batch_not_held", batch_id=self.batch.id, reason=describe(error))
                if time.monotonic() - self._written_at > self._lease:
                    raise LeaseLost(self.batch.id) from error

    async def release(self) -> None:
        """Let another process begin at once."""
        await self.change(lambda batch: batch.model_copy(update={"holder": ""}))

    def _look(self) -> None:
        if self.batch.status == "cancelling" or self.batch.given_up or time.time() >= self.batch.expires_at:
            self.stopped.set()
