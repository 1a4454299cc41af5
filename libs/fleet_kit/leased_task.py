"""Long work on one event: its lease, its fenced writes, its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

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
        *,
        holder: str,
        ttl: timedelta,
    ) -> None:
        self.envelope = envelope
        self.token = token
        """Fencing token: grows with each worker that takes the work up."""
        self.leases = {lease_name: token}
        """What this worker holds, with its tokens: the lease of the event, and what was taken with `take`."""
        self.lost = asyncio.Event()
        """Set when the lease is gone; the handler is cancelled then too."""
        self.finished = False
        self._consumer = consumer
        self.lease = lease_name
        self._transaction = transaction
        self._holder = holder
        self._ttl = ttl
        self._taken: dict[str, int] = {}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that commits only while this worker holds its leases; raises `LeaseLost` otherwise."""
        self._taken.clear()
        async with self._transaction(self.envelope) as tx:
            for name, token in self.leases.items():
                await lease.check(tx.connection, name, token)
            yield tx
        self.leases = self.leases | self._taken  # another dict: the heartbeat may be going through the one before

    async def take(self, tx: Transaction, name: str) -> bool:
        """Take the lease of what this event turns out to be work on; False while another worker holds it.

        From the commit of `tx`, one of `transaction`, it is renewed, fences every write and is released together with
        the event's own lease. For work that does not write in several transactions at once yet. Does not wait for a
        holder's transaction, which may wait for a row that this one has locked.
        """
        if await lease.in_use(tx.connection, name):
            return False
        taken = await lease.acquire(tx.connection, name, self._holder, self._ttl)
        if taken is None:
            return False
        self._taken[name] = taken.token
        return True

    async def progress(self, tx: Transaction) -> None:
        """The work has come further, in this transaction: workers that were killed before it do not count.

        After `attempts.LIMIT` killed workers in a row without progress the event is given up.
        """
        for name, token in (self.leases | self._taken).items():
            await lease.progress(tx.connection, name, token)

    async def pass_over(self) -> None:
        """Finish an event that takes no work, and keep no lease of it: there may be very many."""
        async with self.finish() as tx:
            await lease.discard(tx.connection, self.lease, self.token)

    @asynccontextmanager
    async def finish(self) -> AsyncIterator[Transaction]:
        """The last transaction: the event counts as handled when it commits."""
        async with self.transaction() as tx:
            if not await inbox.claim(tx.connection, self._consumer, self.envelope):
                raise LeaseLost(f"event {self.envelope.id} was finished by another worker")
            yield tx
        self.finished = True
