"""A connection to PostgreSQL that ends with its peer, to whichever of several servers takes writes.

asyncpg tries the servers of an address one after another within one time limit, so that a machine that vanished takes
all of it, and has no option for its sockets.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg

from fleet_kit import tasks
from fleet_kit.sockets import OPTIONS

__all__ = ["connect", "each_host"]

STAGGER = 0.25
"""Seconds until the next server is tried beside one that has not answered yet (RFC 8305, section 5)."""


def each_host(url: str) -> list[str]:
    """The URL once for each of its servers: `postgres://user@a,b:5433/name` names two."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")]


async def connect(dsn: str | None = None, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """`asyncpg.connect`, for a pool to call.

    Of several servers it takes the first in their order that answers and suits; one that does not answer holds up none
    of the others. They suit where they take writes, unless the URL has a `target_session_attrs` of its own.

    Raises:
        OSError, asyncpg.PostgresError: what the last server that failed gave as a reason.
    """
    url = dsn or ""
    urls = each_host(url)
    if len(urls) > 1 and "target_session_attrs" not in dict(parse_qsl(urlsplit(url).query)):
        options["target_session_attrs"] = "read-write"
    connection = await _first(urls, options)
    _watch(connection)
    return connection


async def _first(urls: Sequence[str], options: dict[str, Any]) -> "asyncpg.Connection[asyncpg.Record]":
    waiting = list(urls)
    attempts: set[asyncio.Task[Any]] = set()
    fault: BaseException = ConnectionError("no server is named")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(asyncpg.connect(waiting.pop(0), **options)))
            pause = STAGGER if waiting else None
            done, attempts = await asyncio.wait(attempts, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                if (failed := attempt.exception()) is None:
                    attempts |= done - {attempt}
                    found: asyncpg.Connection[asyncpg.Record] = attempt.result()
                    return found
                fault = failed
        raise fault
    finally:
        await _close(attempts)


async def _close(attempts: set[asyncio.Task[Any]]) -> None:
    """End the attempts that are not needed, with a connection that one of them may have made at the same moment."""
    await tasks.end(*attempts)
    for attempt in attempts:
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().terminate()


def _watch(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Have the kernel end the connection once its peer has vanished."""
    own: Any = connection  # asyncpg has no public way from a connection to its socket
    endpoint: socket.socket | None = own._transport.get_extra_info("socket")
    if endpoint is None or endpoint.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    for level, name, value in OPTIONS:
        endpoint.setsockopt(level, name, value)
