"""Objects of this service, large texts of recorded answers and files of batches: deleted once they are old."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import NoReturn

import structlog

from fleet_kit.blobs import Blobs
from fleet_kit.faults import describe
from fleet_kit.object_sweep import sweep
from services.inference.recording.recorder import AWAY

log = structlog.get_logger()

EVERY_SECONDS = 6 * 3600.0


async def keep_sweeping(blobs: Blobs, kept: Mapping[str, timedelta]) -> NoReturn:
    """Sweep from the start on, each kind of object by its own time. Replicas may do so side by side."""
    while True:
        for kind, age in kept.items():
            try:
                await sweep_aged(blobs, kind, age)
            except AWAY as error:
                log.warning("objects_not_swept", kind=kind, reason=describe(error))
        await asyncio.sleep(EVERY_SECONDS)


async def sweep_aged(blobs: Blobs, kind: str, kept: timedelta) -> int:
    """Delete what is older, whether it is referred to or its replica was killed before; returns how many objects.

    The trainer takes the texts of answers from here into its own rows, and its message is gone from the stream by then.
    """
    (swept,) = await sweep(blobs, [kind], _nothing, grace=kept, apply=True)
    return swept.deleted


async def _nothing() -> Collection[str]:
    return ()
