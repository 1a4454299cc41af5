"""One database transaction together with the events that it publishes."""

from dataclasses import dataclass, field

from fleet_events.message import Event
from fleet_kit import outbox
from fleet_kit.cloudevents import Envelope, Outgoing, seal
from fleet_kit.db import Connection
from fleet_kit.tracing import trace_headers

__all__ = ["Transaction"]


@dataclass
class Transaction:
    """What a handler or an endpoint writes through."""

    service: str
    connection: Connection
    cause: Envelope | None = None
    """The event being handled, if one is."""
    emitted: int = field(default=0)
    _outgoing: list[Outgoing] = field(default_factory=list, init=False)
    """Events that are not in the outbox yet."""

    @property
    def envelope(self) -> Envelope:
        """Of the event being handled; raises LookupError where none is."""
        if self.cause is None:
            raise LookupError("this transaction has no event as its cause")
        return self.cause

    async def emit(self, event: Event, entity: str) -> str:
        """Publish an event once this transaction is committed.

        Args:
            event: the fact.
            entity: id of the thing that it is about (ce-subject); the events of one thing keep their order.

        Returns:
            The event's id.

        Raises:
            ValueError: the event is larger than the bus allows.
        """
        outgoing = seal(event, service=self.service, entity=entity, trace=trace_headers())
        self._outgoing.append(outgoing)
        self.emitted += 1
        return outgoing.id

    async def flush(self) -> None:
        """Write the events to the outbox, by one statement for all of them; the commit is preceded by it."""
        if self._outgoing:
            await outbox.add(self.connection, *self._outgoing)
            self._outgoing.clear()
