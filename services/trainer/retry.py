"""Waiting out faults of dependencies, so that minutes of training are not lost for seconds of outage."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from fleet_kit.errors import BlobMissing
from fleet_kit.faults import TRANSIENT, is_transient

T = TypeVar("T")
log = structlog.get_logger()

PASSING = TRANSIENT
_PAUSE = 0.5
_LONGEST_PAUSE = 5.0


async def patiently(what: str, call: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """The call's result, trying again while the database or the object store is unavailable.

    Raises:
        what the call raised last, once `seconds` are over, or at once when it is no fault that passes.
    """
    deadline, pause = time.monotonic() + seconds, _PAUSE
    while True:
        try:
            return await call()
        except (BlobMissing, FileNotFoundError):
            raise  # waiting brings nothing back
        except PASSING as error:
            if not is_transient(error) or time.monotonic() + pause > deadline:
                raise
            log.warning("retrying", what=what, reason=repr(error))
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
