"""A row of the topology: one event with its subject, its publishers and its consumers."""

from dataclasses import dataclass
from datetime import timedelta

from fleet_events.message import Event
from fleet_events.streams import DATA, FACTS, SERVING, Stream

__all__ = ["UPSTREAM", "Consumer", "Row"]

UPSTREAM = "upstream"
"""The NATS user of systems outside the fleet."""


@dataclass(frozen=True)
class Consumer:
    """A durable consumer of one service.

    `ack_wait` is how long a message may stay unanswered before another worker gets it. Long work renews it
    with in-progress heartbeats, so there it is the time after which a killed worker is noticed.
    """

    service: str
    ack_wait: timedelta = timedelta(seconds=15)
    max_ack_pending: int = 256
    workers: int = 4
    """Messages that one process handles at once: long work, and what is delivered again."""
    shared: bool = False
    """Whether all replicas take from it at once: its handler gives the same result in any order of events. Any other
    durable of short work is one replica's at a time, see `fleet_kit.turns`."""


@dataclass(frozen=True)
class Row:
    """One event: its subject, who may publish it, who consumes it durably, how long the stream keeps it.

    `followed_by` are services that read it from the stream's start without a durable, each process for itself, whenever
    they build a projection.
    """

    event: type[Event]
    subject: str
    published_by: tuple[str, ...]
    consumed_by: tuple[Consumer, ...] = ()
    followed_by: tuple[str, ...] = ()
    keep: timedelta | None = None
    """None keeps it as long as its stream does: projections are rebuilt from the facts."""
    stored_in: Stream | None = None
    """Its stream, where that does not follow from who publishes it."""

    @property
    def stream(self) -> Stream:
        """Where it is stored: what outsiders may publish, and what grows with every answer, is kept apart."""
        if self.stored_in is not None:
            return self.stored_in
        if UPSTREAM in self.published_by:
            return DATA
        return SERVING if self.published_by == ("inference",) else FACTS

    @property
    def area(self) -> str:
        """What its subject is about, its third level: `adapter`, `training`, …"""
        return self.subject.split(".")[2]
