"""What is done now and then, by one trainer at a time: checkpoints, uploads, answers expire, lost tickets come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from fleet_kit import tasks
from fleet_kit.collection import keep_collecting
from fleet_kit.db import keeps_session
from fleet_kit.object_owner import keep_owning
from services.trainer.datasets.answers.expiry import expire_answers
from services.trainer.datasets.upload_expiry import expire_uploads
from services.trainer.retry import PASSING
from services.trainer.runs import garbage, lost_tickets, resume_data
from services.trainer.runs.context import RunContext
from services.trainer.runs.erasure.uploads import erase_late_uploads
from services.trainer.runs.erasure.work import erase_frozen_since

log = structlog.get_logger()


@asynccontextmanager
async def housekeeping(service: RunContext) -> AsyncIterator[None]:
    """Sweep every `sweep_seconds` as long as this is open."""
    owning = keep_owning(service.db, service.blobs, garbage.KINDS)
    running = [
        asyncio.create_task(work)
        for work in (
            _keep_sweeping(service),
            keep_collecting(service.settings.gc_every_hours, lambda: garbage.collect(service, apply=True)),
            owning,
        )
    ]
    try:
        yield
    finally:
        await tasks.end(*running)


async def _keep_sweeping(service: RunContext) -> None:
    while True:
        try:
            await sweep(service)
        except PASSING as error:
            log.warning("sweep_not_completed", reason=repr(error))
        await asyncio.sleep(service.settings.sweep_seconds)


async def sweep(service: RunContext) -> None:
    """Remove what has expired and replace what was lost, unless another trainer is at it."""
    async with service.db.acquire(timeout=5) as connection:
        keeps_session(connection)
        if not await connection.fetchval("select pg_try_advisory_lock(hashtextextended('trainer.sweep', 106))"):
            return
        try:
            tickets = await lost_tickets.replace(service)
            checkpoints = await resume_data.sweep(service)
            uploads = await expire_uploads(service)
            await erase_late_uploads(service)
            await erase_frozen_since(service)
            answers = await expire_answers(service)
        finally:
            await connection.execute("select pg_advisory_unlock(hashtextextended('trainer.sweep', 106))")
    if tickets or checkpoints or uploads or answers:
        log.info("swept", tickets=tickets, checkpoints=checkpoints, uploads=uploads, answers=answers)
