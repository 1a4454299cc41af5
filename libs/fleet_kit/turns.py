"""Which durables of short work this process takes: one replica has each at a time, so that its events keep their order.

Two replicas that took turns message by message would commit what they hold in any order. So a replica takes a durable
for itself, by an advisory lock, and the durables of a service are divided among its replicas. Durables whose handlers
give the same result in any order (`Consumer.shared`) need no turn: all replicas take from those at once.

A replica that is killed loses its locks with its connection. What it had taken comes again after the durable's
`ack_wait`, behind newer events: `revision` orders those.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import structlog

from fleet_kit.db import Connection, Pool, keeps_session
from fleet_kit.faults import describe, is_transient

__all__ = ["Turns"]

log = structlog.get_logger()

LOOK_EVERY = 1.0
"""Seconds between two looks at how many replicas there are and which durables are free."""


async def _announce(connection: Connection, service: str) -> None:
    """Give the session the name under which replicas count each other."""
    keeps_session(connection)
    await connection.execute("select set_config('application_name', $1, false)", _name(service))


async def _replicas(connection: Connection, service: str) -> int:
    return int(
        await connection.fetchval(
            "select count(*) from pg_stat_activity where application_name = $1 and datname = current_database()",
            _name(service),
        )
    )


async def _take(connection: Connection, durables: Sequence[str], at_most: int) -> list[str]:
    """Take durables that no replica has; returns those."""
    rows = await connection.fetch(
        "select durable from unnest($1::text[]) as durable"
        " where pg_try_advisory_lock(hashtextextended('intake:' || durable, 0)) limit $2",
        durables,
        at_most,
    )
    return [row["durable"] for row in rows]


async def _leave(connection: Connection, durables: Sequence[str]) -> None:
    await connection.execute(
        "select pg_advisory_unlock(hashtextextended('intake:' || durable, 0)) from unnest($1::text[]) as durable",
        durables,
    )


def _name(service: str) -> str:
    return f"{service}-intake"


class Turns:
    """The durables that are this process's."""

    def __init__(self, service: str, pool: Pool, durables: Collection[str]) -> None:
        """`pool` is one connection, which `run` opens, holds and closes."""
        self._service = service
        self._pool = pool
        self._durables = tuple(durables)
        self._held: set[str] = set()
        self._leaving: set[str] = set()
        """Held, and to be left to another replica once nothing of it is under way."""
        self._busy: set[str] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def of(self, durable: str) -> AsyncIterator[None]:
        """Wait until the durable is this process's, and keep it meanwhile unless the connection is lost."""
        async with self._changed:
            await self._changed.wait_for(lambda: durable in self._held and durable not in self._leaving)
            self._busy.add(durable)
        try:
            yield
        finally:
            self._busy.discard(durable)

    async def run(self) -> None:
        """Take this replica's share of the durables until cancelled; faults of the database are waited out."""
        async with self._pool:
            await self._run()

    async def _run(self) -> None:
        while True:
            try:
                async with self._pool.acquire() as connection:
                    await _announce(connection, self._service)
                    while True:
                        await self._look(connection)
                        await asyncio.sleep(LOOK_EVERY)
            except Exception as error:
                # A defect is reported with its place; without turns nothing would be consumed any more.
                log.warning(
                    "turns_lost", service=self._service, reason=describe(error), exc_info=not is_transient(error)
                )
            finally:
                self._held.clear()
                self._leaving.clear()
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self, connection: Connection) -> None:
        share = -(-len(self._durables) // max(1, await _replicas(connection, self._service)))
        surplus = len(self._held) - share
        self._leaving = set(sorted(self._held)[:surplus]) if surplus > 0 else set()
        if left := [durable for durable in self._leaving if durable not in self._busy]:
            await _leave(connection, left)
            self._held.difference_update(left)
            self._leaving.difference_update(left)
        free = [durable for durable in self._durables if durable not in self._held]
        taken = await _take(connection, free, -surplus) if surplus < 0 and free else []
        if taken:
            log.info("durables_taken", service=self._service, durables=taken)
        async with self._changed:
            self._held.update(taken)
            self._changed.notify_all()
