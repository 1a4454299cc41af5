"""Long work on one event: its lease, its fenced writes, its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fleet_kit import inbox, lease
from fleet_kit.cloudevents import Envelope
from fleet_kit.errors import LeaseLost
from fleet_kit.transaction import Transaction

__all__ = ["LeasedTask"]


class LeasedTask:
    """What the handler of long work gets. Every write is fenced: it fails once another worker has taken over."""

    def __init__(
        self,
        envelope: Envelope,
        consumer: str,
        lease_name: str,
        token: int,
        transaction: Callable[[Envelope], AbstractAsyncContextManager[Transaction]],
    ) -> None:
        self.envelope = envelope
        self.token = token
        """Fencing token: grows with each worker that takes the work up."""
        self.lost = asyncio.Event()
        """Set when the lease is gone; the handler is cancelled then too."""
        self.finished = False
        self._consumer = consumer
        self.lease = lease_name
        self._transaction = transaction

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that commits only while this worker holds the lease; raises `LeaseLost` otherwise."""
        async with self._transaction(self.envelope) as tx:
            await lease.check(tx.connection, self.lease, self.token)
            yield tx

    async def progress(self, tx: Transaction) -> None:
        """The work has come further, in this transaction: workers that were killed before it do not count.

        After `attempts.LIMIT` killed workers in a row without progress the event is given up.
        """
        await lease.progress(tx.connection, self.lease, self.token)

    @asynccontextmanager
    async def finish(self) -> AsyncIterator[Transaction]:
        """The last transaction: the event counts as handled when it commits."""
        async with self.transaction() as tx:
            if not await inbox.claim(tx.connection, self._consumer, self.envelope):
                raise LeaseLost(f"event {self.envelope.id} was finished by another worker")
            yield tx
        self.finished = True
