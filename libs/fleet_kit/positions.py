"""How far each replica has followed the facts, so that the publisher of one can see where it is applied."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn

import nats.errors
import structlog
from nats.js import JetStreamContext

from fleet_events.buckets import POSITIONS
from fleet_kit.faults import describe
from fleet_kit.key_value import KeyValue

__all__ = ["Reached", "announce_position", "reached"]

log = structlog.get_logger()

LOOK_EVERY = 0.05
"""Seconds between two looks at whether the position has changed."""
RENEW_EVERY = 1.0
"""Seconds after which an unchanged position is announced again: the bucket drops it after 5."""


@dataclass(frozen=True)
class Reached:
    """Names of the replicas that have applied a fact, and of those that have not yet."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]


async def announce_position(jetstream: JetStreamContext, replica: str, position: Callable[[], int]) -> NoReturn:
    """Announce the newest fact that a replica has applied, at once when it changes, until cancelled.

    Args:
        jetstream: connected as a user that may write the bucket.
        replica: name of this replica, a key of the bucket.
        position: gives the sequence of that fact in its stream; 0 before the first.
    """
    bucket = KeyValue(jetstream, POSITIONS)
    loop = asyncio.get_running_loop()
    announced, due = -1, 0.0
    while True:
        now = position()
        if now != announced or loop.time() >= due:
            try:
                await bucket.put(replica, str(now).encode())
                announced, due = now, loop.time() + RENEW_EVERY
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("position_not_announced", reason=describe(error))
                await asyncio.sleep(RENEW_EVERY)
        await asyncio.sleep(LOOK_EVERY)


async def reached(jetstream: JetStreamContext, sequence: int, *, seconds: float) -> Reached:
    """Wait until every replica has applied the fact with that sequence, or the time is up.

    Args:
        jetstream: connected as a user that may read the bucket.
        sequence: of the fact, in its stream.
        seconds: how long to wait at most.

    Raises:
        nats.errors.Error, OSError, TimeoutError: the bus is unavailable.
    """
    expected = (await jetstream.stream_info(POSITIONS.stream)).state.messages
    known: dict[str, int] = {}
    if not expected:
        return Reached((), ())
    seen = 0
    try:
        async with asyncio.timeout(seconds), aclosing(KeyValue(jetstream, POSITIONS).watch()) as changes:
            async for replica, value in changes:
                seen += 1
                if value is None or not value.isdigit():
                    known.pop(replica, None)
                else:
                    known[replica] = int(value)
                if seen >= expected and all(applied >= sequence for applied in known.values()):
                    break
    except TimeoutError:
        pass  # those that have not applied it by now are pending
    return Reached(
        tuple(sorted(replica for replica, applied in known.items() if applied >= sequence)),
        tuple(sorted(replica for replica, applied in known.items() if applied < sequence)),
    )
