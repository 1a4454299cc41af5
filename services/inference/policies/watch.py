"""Looks at the memory pressure every few seconds and does what its level requires."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from fleet_kit.memory import Reading, tightest
from services.inference import metrics
from services.inference.base_models import BaseModels
from services.inference.errors import Busy
from services.inference.policies.pressure import Ladder, Level

log = structlog.get_logger()


class PressureWatch:
    """`idle`: seconds after which an unused adapter leaves at level high. `every`: seconds between readings."""

    def __init__(
        self, hosting: BaseModels, ladder: Ladder, *, idle: float, every: float, read: Callable[[], list[Reading]]
    ) -> None:
        self.level = Level.LOW
        self.readings: list[Reading] = []
        self._hosting = hosting
        self._ladder = ladder
        self._idle = idle
        self._every = every
        self._read = read

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """One reading, and what follows from it."""
        self.readings = await asyncio.to_thread(self._read)
        tight = tightest(self.readings)
        before, self.level = self.level, self._ladder.step(self.level, tight.share if tight else 0.0)
        metrics.PRESSURE.set(self.level)
        metrics.MEMORY_SHARE.set(tight.share if tight else 0.0)
        if self.level is not before:
            share = round(tight.share, 3) if tight else 0.0
            log.warning("memory_pressure", level=self.level.name.lower(), share=share, of=tight.source if tight else "")
        for hosted in self._hosting.all:
            if hosted.trim is None:
                continue  # its adapters take another machine's memory
            hosted.adapters.expand(allowed=self.level is Level.LOW)
            if self.level < Level.HIGH:
                continue
            idle = 0.0 if self.level is Level.CRITICAL else self._idle
            if evicted := await hosted.adapters.evict("memory pressure", idle_for=idle):
                log.info("evicted_for_memory", adapters=evicted)
            with suppress(Busy):  # the engine is stopping
                await hosted.trim()
