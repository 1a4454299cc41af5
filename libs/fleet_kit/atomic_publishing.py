"""Many events as one atomic batch of JetStream: all of them are stored, one behind the other, or none is.

https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md (nats-server 2.12 and later). One
acknowledgement answers for the whole batch, and no event of it can overtake another. The server refuses a batch in
which it knows a Nats-Msg-Id already; after a crash between acknowledgement and mark that is the expected case, so a
refusal only means that the events have to be published one by one.
"""

from collections.abc import Sequence
from uuid import uuid4

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import APIError, NotFoundError

from fleet_kit.cloudevents import Outgoing
from fleet_kit.publishing import TIMEOUT, has_room, is_well_formed

__all__ = ["AtomicPublisher"]

FEWEST = 32
"""Events from which a batch costs less than as many publications: the server opens a store for each batch."""
MOST = 1000
"""Of one batch: the server's limit."""


class AtomicPublisher:
    """Publishes batches where the stream permits them, which is looked up once until `forget`."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream
        self._permitted: dict[str, bool] = {}

    def forget(self) -> None:
        """Look up again which streams permit batches."""
        self._permitted.clear()

    async def publish(self, stream: str, events: Sequence[Outgoing]) -> list[PubAck] | None:
        """Publish events of one stream together.

        Returns:
            Where each is stored; None where they have to be published one by one, none of them being stored by this.

        Raises:
            nats.errors.Error, OSError, TimeoutError: they are not known to be stored, and may be sent again.
        """
        if not FEWEST <= len(events) <= MOST or not await self._permits(stream):
            return None
        batch = uuid4().hex
        messages = [
            (event, {**event.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)})
            for number, event in enumerate(events, start=1)
        ]
        last, headers = messages[-1]
        headers["Nats-Batch-Commit"] = "1"
        if not all(is_well_formed(one.subject) and has_room(self._jetstream, one.body, h) for one, h in messages):
            return None
        client = self._jetstream._nc  # nats-py's JetStream waits for an answer to each message
        try:
            for one, its_headers in messages[:-1]:
                await client.publish(one.subject, one.body, headers=its_headers)
            ack = await self._jetstream.publish(last.subject, last.body, timeout=TIMEOUT, headers=headers)
        except (APIError, nats.errors.BadSubjectError, nats.errors.BadHeaderError):
            return None
        if ack.batch_size != len(events):
            return None  # a server that knows no batches has taken the last message for a message
        first = ack.seq - len(events) + 1
        return [PubAck(stream=ack.stream, seq=first + number) for number in range(len(events))]

    async def _permits(self, stream: str) -> bool:
        if stream not in self._permitted:
            try:
                info = await self._jetstream.stream_info(stream)
            except NotFoundError:
                return False  # the publication itself gives the reason
            self._permitted[stream] = bool(info.config.allow_atomic)
        return self._permitted[stream]
