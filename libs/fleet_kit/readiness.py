"""Readiness of the servers that a service depends on: each is written to, since a full disk still answers reads.

A server whose disk was full may still refuse writes when there is room again, until it is restarted; only a write
shows that.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from nats.js import JetStreamContext

from fleet_events.topology import probe_subject
from fleet_kit.db import Pool, leaves_a_standby

__all__ = ["Cached", "write_database", "write_stream"]

FRESH_SECONDS = 5.0
"""How long a result counts: however often readiness is requested, a server is written to once in that time."""
FAILED_SECONDS = 1.0
"""The same for a failure, so that a server that is back is noticed soon."""
TIMEOUT = 2.0
"""Seconds that one write may take."""


class Cached:
    """A check whose result counts for some seconds; those who ask meanwhile wait for the one that runs."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._until = float("-inf")
        self._fault: Exception | None = None
        self._lock = asyncio.Lock()

    async def __call__(self) -> None:
        """Raise what the check raised."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._fault = await self._run()
                seconds = FRESH_SECONDS if self._fault is None else FAILED_SECONDS
                self._until = time.monotonic() + seconds
        if self._fault is not None:
            raise self._fault.with_traceback(None)

    async def _run(self) -> Exception | None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._check()
        except TimeoutError:
            return TimeoutError(f"no write within {TIMEOUT:g} s")
        except Exception as error:
            return error
        return None


async def write_stream(jetstream: JetStreamContext, service: str) -> None:
    """Have JetStream store a message; raises what it answers instead."""
    await jetstream.publish(probe_subject(service), b"", timeout=TIMEOUT)


async def write_database(pool: Pool) -> None:
    """Commit a row; raises what PostgreSQL answers instead."""
    async with leaves_a_standby(pool), pool.acquire(timeout=TIMEOUT) as connection:
        await connection.execute(
            "insert into probe (written_at) values (now()) on conflict (id) do update set written_at = now()",
            timeout=TIMEOUT,
        )
