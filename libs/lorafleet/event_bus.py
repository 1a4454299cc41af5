"""`EventBus`: an upstream system's connection to the fleet's events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from nats.aio.client import Client

from fleet_events import Event
from fleet_events.topology import TOPOLOGY, row_of
from lorafleet import bus
from lorafleet.bus import Position, Received
from lorafleet.errors import BadInput
from lorafleet.home import FleetHome

__all__ = ["EventBus", "require_upstream"]


def require_upstream(event: type[Event], option: str) -> None:
    """Raise `BadInput` for an event that upstream systems may not publish; the bus would refuse it without a reason."""
    if "upstream" not in row_of(event).published_by:
        allowed = ", ".join(row.event.__name__ for row in TOPOLOGY if "upstream" in row.published_by)
        raise BadInput(
            option, f"only the fleet itself publishes {event.__name__}; upstream systems may publish {allowed}"
        )


class EventBus:
    """Publishes events and follows them. Use as an async context manager.

    `user` is whose nkey is used: `upstream` may publish what the topology allows upstream systems, and nothing else;
    `admin` may follow, too. Raises `Unreachable` where NATS does not answer.
    """

    def __init__(self, home: FleetHome, user: str = "upstream") -> None:
        self._home = home
        self._user = user
        self._open = AsyncExitStack()
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        self._client = await self._open.enter_async_context(bus.connect(self._home, self._user))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def publish(self, event: Event, *, entity: str = "", source: str = "upstream") -> int:
        """Publish an event and wait until it is stored; returns its sequence in the stream.

        Args:
            entity: what the event is about (ce-subject); empty takes it from the event.
            source: who publishes (ce-source).

        Raises:
            BadInput: an event that only the fleet's services publish.
        """
        require_upstream(type(event), "event")
        return await bus.publish(self._nats, bus.outgoing(event, entity or bus.entity_of(event), source))

    async def position(self) -> Position:
        """Where each stream ends now: `follow(after=...)` gives what comes later, whenever that is read."""
        return await bus.position(self._nats)

    def follow(self, *types: type[Event], after: Position | None = None, wait: bool = True) -> AsyncIterator[Received]:
        """Every event of these types (none: of all) after a position, or from now on; see `bus.follow`."""
        return bus.follow(self._nats, after=after, subjects=[row_of(one).subject for one in types], wait=wait)

    @property
    def _nats(self) -> Client:
        if self._client is None:
            raise RuntimeError("the bus is not open: use `async with EventBus(...)`")
        return self._client
