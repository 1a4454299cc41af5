"""Large texts of recorded answers in the object store: deleted once nobody can be waiting for them."""

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import NoReturn

import structlog

from fleet_kit.blobs import Blobs
from fleet_kit.faults import describe
from fleet_kit.object_sweep import sweep
from services.inference.recording.recorder import AWAY, KIND

log = structlog.get_logger()

EVERY_SECONDS = 6 * 3600.0


async def keep_sweeping(blobs: Blobs, kept: timedelta) -> NoReturn:
    """Sweep from the start on. Replicas may do so side by side."""
    while True:
        try:
            await sweep_texts(blobs, kept)
        except AWAY as error:
            log.warning("answer_texts_not_swept", reason=describe(error))
        await asyncio.sleep(EVERY_SECONDS)


async def sweep_texts(blobs: Blobs, kept: timedelta) -> int:
    """Delete what is older, whether it was published or its replica was killed before; returns how many objects.

    The trainer takes the texts from here into its own rows, and its message is gone from the stream by then.
    """
    (swept,) = await sweep(blobs, [KIND], _nothing, grace=kept, apply=True)
    return swept.deleted


async def _nothing() -> Collection[str]:
    return ()
