"""Decides rollouts that no answer decides: a step's time passes without traffic too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from fleet_kit.faults import describe
from services.registry.parts import RegistryService
from services.registry.rollout.counting import decide
from services.registry.store import rollouts

log = structlog.get_logger()


async def watch(service: RegistryService) -> None:
    """Look at every rollout that runs, until cancelled. Replicas may do so side by side."""
    while True:
        try:
            async with service.db.acquire(timeout=5) as connection:
                running = await rollouts.all_running(connection)
            for one in running:
                async with service.transaction() as tx:
                    await decide(tx, one.rollout, datetime.now(UTC))
        except Exception as error:
            log.warning("rollouts_not_looked_at", reason=describe(error))
        await asyncio.sleep(service.settings.rollout_look_seconds)
