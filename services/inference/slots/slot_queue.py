"""Why adapters are to be in slots: requests that wait, pins, and what was preloaded."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from services.inference.slots.allocation import Priority

EXPIRES = 60.0
"""Seconds after which a workflow or a prediction that got no slot is out of date."""

_LASTING = (Priority.ACTIVATION, Priority.DISK)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that waits; it counts as waiting since then (monotonic s)."""

    granted: asyncio.Future[None]
    since: float


class SlotQueue:
    """Who wants which adapter. Owned by the task of `Adapters`."""

    def __init__(self) -> None:
        self.pinned: set[str] = set()
        self._tickets: dict[str, list[Ticket]] = {}
        # Wanted until they are withdrawn, and wanted once; each with the time since when.
        self._lasting: dict[str, tuple[Priority, float]] = {}
        self._once: dict[str, tuple[Priority, float]] = {}

    def join(self, adapter_id: str, ticket: Ticket) -> None:
        """A request waits for it."""
        self._tickets.setdefault(adapter_id, []).append(ticket)

    def leave(self, adapter_id: str, granted: asyncio.Future[None]) -> bool:
        """It waits no longer; whether it did."""
        tickets = self._tickets.get(adapter_id, [])
        left = [ticket for ticket in tickets if ticket.granted is not granted]
        self._tickets[adapter_id] = left
        if not left:
            del self._tickets[adapter_id]
        return len(left) < len(tickets)

    def take(self, adapter_id: str) -> list[Ticket]:
        """All that wait for it; they wait no more."""
        return self._tickets.pop(adapter_id, [])

    def waiting(self, adapter_id: str) -> int:
        """How many requests wait for it."""
        return len(self._tickets.get(adapter_id, ()))

    def want(self, adapter_id: str, priority: Priority, now: float) -> None:
        """It is to be there though no request waits for it."""
        if priority is Priority.PINNED:
            self.pinned.add(adapter_id)
        elif priority in _LASTING:
            self._lasting.setdefault(adapter_id, (priority, now))
        elif adapter_id not in self._once or priority <= self._once[adapter_id][0]:
            self._once[adapter_id] = (priority, now)

    def unwant(self, adapter_id: str) -> None:
        """It need not be there but for the requests that wait."""
        self.pinned.discard(adapter_id)
        self._lasting.pop(adapter_id, None)
        self._once.pop(adapter_id, None)

    def loaded(self, adapter_id: str) -> None:
        """It is there: what wanted it once is satisfied."""
        self._once.pop(adapter_id, None)

    def forget(self, adapter_id: str) -> None:
        """All of it."""
        self.unwant(adapter_id)
        self._tickets.pop(adapter_id, None)

    def expire(self, now: float) -> None:
        """What is out of date is wanted no more."""
        if self._once:
            self._once = {one: want for one, want in self._once.items() if now - want[1] < EXPIRES}

    @property
    def pressing(self) -> set[str]:
        """All that are wanted for more than that a slot is free; few, however many adapters are active."""
        return {*self._tickets, *self.pinned, *self._once}

    def filling(self) -> Iterator[str]:
        """Those wanted while a slot is free, in the order in which they were."""
        return (one for one, (priority, _) in self._lasting.items() if priority is Priority.ACTIVATION)

    def preloaded(self, adapter_id: str) -> Priority | None:
        """Why it is wanted, requests apart."""
        if adapter_id in self.pinned:
            return Priority.PINNED
        want = self._once.get(adapter_id) or self._lasting.get(adapter_id)
        return want[0] if want else None

    def rank(self, adapter_id: str) -> tuple[Priority, float]:
        """Its place in the queue for slots: the strongest reason, and since when there is one (monotonic s)."""
        if tickets := self._tickets.get(adapter_id):
            return Priority.REQUEST, min(ticket.since for ticket in tickets)
        if adapter_id in self.pinned:
            return Priority.PINNED, 0.0
        return self._once.get(adapter_id) or self._lasting.get(adapter_id) or (Priority.DISK, 0.0)
