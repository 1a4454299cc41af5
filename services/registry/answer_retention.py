"""Deletes what is kept of answers when it is older than `answers_kept_days`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from fleet_kit.faults import describe
from services.registry.parts import RegistryService
from services.registry.store import answers, preferences, rollouts

log = structlog.get_logger()

SWEEP_SECONDS = 600.0


async def forget_old(service: RegistryService) -> None:
    """Sweep every `SWEEP_SECONDS`, in batches, until cancelled. Replicas may do so side by side."""
    age = timedelta(days=service.settings.answers_kept_days)
    while True:
        try:
            async with service.db.acquire(timeout=5) as connection:
                await preferences.name_adapters(connection)
                more = await answers.forget_answers(connection, age)
                more = await rollouts.forget_parts(connection, age) or more
                more = await rollouts.forget_scores(connection, age) or more
                await preferences.forget_unanswered(connection, age)
        except Exception as error:
            log.warning("old_answers_not_deleted", reason=describe(error))
            more = False
        await asyncio.sleep(0.1 if more else SWEEP_SECONDS)
