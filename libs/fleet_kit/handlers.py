"""The table of contents of a service's handlers.py: which function handles which event."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fleet_events.message import Event
from fleet_events.topology import Consumer, Row, consumers_of, durable_name
from fleet_kit.cloudevents import Envelope
from fleet_kit.errors import Unreadable
from fleet_kit.leased_task import LeasedTask
from fleet_kit.transaction import Transaction

__all__ = ["Binding", "Delivered", "GiveUp", "Handlers", "Many", "Unread"]

S = TypeVar("S")
E = TypeVar("E", bound=Event)


Unread = Callable[[bytes, Unreadable, Transaction, Any], Awaitable[None]]
"""Handles a body that breaks its event's contract: body, what is wrong with it, transaction, service."""

GiveUp = Callable[[Any, str, LeasedTask, Any], Awaitable[None]]
"""Ends long work whose workers were killed too often: event, reason, work, service. It ends with `work.finish()`."""


@dataclass(frozen=True)
class Delivered(Generic[E]):
    """An event and its attributes."""

    event: E
    envelope: Envelope


Many = Callable[[Sequence[Delivered[E]], Transaction, S], Awaitable[None]]
"""Handles several events by statements that hold for all of them."""


@dataclass(frozen=True)
class Binding:
    """A durable consumer and the function behind it. `lease` is set for long work."""

    row: Row
    consumer: Consumer
    function: Callable[..., Awaitable[None]]
    lease: Callable[[Any, Envelope], str] | None = None
    unreadable: Unread | None = None
    give_up: GiveUp | None = None
    many: Many[Any, Any] | None = None

    @property
    def durable(self) -> str:
        """Name of the durable consumer."""
        return durable_name(self.consumer, self.row)


class Handlers(Generic[S]):
    """Handlers of one service. Each must have its row in the topology, or registering it fails at import."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.bindings: dict[type[Event], Binding] = {}

    def on(
        self, event: type[E], *, unreadable: Unread | None = None, many: Many[E, S] | None = None
    ) -> Callable[[Callable[[E, Transaction, S], Awaitable[None]]], Callable[[E, Transaction, S], Awaitable[None]]]:
        """Handle an event in one transaction: inbox row, the function's writes, outbox rows. Then ack.

        Events that arrive together share a transaction, in the order of their arrival, and the function is called for
        each. One that fails is called again, alone; so are, together, those that were rolled back with it.

        `many` does for several events what the function does for each, where that is cheaper. It may raise anything:
        the events are then handled in smaller numbers, in the end one by one.

        `unreadable` does the same for a body that breaks the contract, where that has an answer for its sender; it
        raises what it was given to leave the body to the dead letters, which is what happens without it.
        """

        def register(
            function: Callable[[E, Transaction, S], Awaitable[None]],
        ) -> Callable[[E, Transaction, S], Awaitable[None]]:
            self._add(event, function, unreadable=unreadable, many=many)
            return function

        return register

    def long(
        self, event: type[E], *, lease: Callable[[E, Envelope], str], give_up: GiveUp | None = None
    ) -> Callable[[Callable[[E, LeasedTask, S], Awaitable[None]]], Callable[[E, LeasedTask, S], Awaitable[None]]]:
        """Handle an event by long work, under the lease of the name that `lease` gives.

        The message is held with heartbeats meanwhile. The function writes through `work.transaction()` and
        ends with `work.finish()`.

        An event whose workers are killed again and again, without `work.progress()` in between, goes to `give_up`,
        which fails what the event requested; without one it becomes a dead letter.
        """

        def register(
            function: Callable[[E, LeasedTask, S], Awaitable[None]],
        ) -> Callable[[E, LeasedTask, S], Awaitable[None]]:
            self._add(event, function, lease=lease, give_up=give_up)
            return function

        return register

    def _add(
        self,
        event: type[Event],
        function: Callable[..., Awaitable[None]],
        *,
        lease: Callable[[Any, Envelope], str] | None = None,
        unreadable: Unread | None = None,
        give_up: GiveUp | None = None,
        many: Many[Any, Any] | None = None,
    ) -> None:
        for row, consumer in consumers_of(self.service):
            if row.event is event:
                self.bindings[event] = Binding(row, consumer, function, lease, unreadable, give_up, many)
                return
        raise ValueError(f"{self.service} does not consume {event.__name__}: add it to fleet_events/topology.py")
