"""What the replicas of inference know of each other: each announces itself in a key-value bucket and watches it.

A bucket and not plain messages, because a replica that has just started then sees all the others at once, and because
the bus's permissions keep it to holders of inference's credential: requests with their callers' tokens go to the
addresses that stand there.

A replica that dies is forgotten when its announcement is older than the bucket's time to live, by each reader's own
clock; one that stops removes its key. While the bus is unavailable no replica sees another, and each answers by itself.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

import nats.errors
import structlog
from nats.js import JetStreamContext
from pydantic import ValidationError

from fleet_events.buckets import REPLICAS
from fleet_kit.faults import describe
from fleet_kit.key_value import KeyValue
from services.inference.base_models import BaseModels, ServedBaseModel
from services.inference.http.drain import Gate
from services.inference.replicas.selection import Replica, Serving
from services.inference.slots.states import Draining, Loaded, Loading

log = structlog.get_logger()

LOOK_EVERY = 0.1
"""Seconds between two looks at what has changed here: changes are announced no more often than that."""
AWAY = (nats.errors.Error, OSError)


@dataclass(eq=False, slots=True)
class _Peer:
    """A replica's last announcement, at `at` (monotonic s), and what is known here since.

    `sent`: by base model revision, requests that were sent there after it and are not done.
    """

    replica: Replica
    at: float
    sent: dict[str, int] = field(default_factory=dict)
    unreachable: bool = False

    @property
    def now(self) -> Replica:
        if not any(self.sent.values()):
            return self.replica
        serves = {
            revision: one.model_copy(update={"waiting": one.waiting + self.sent.get(revision, 0)})
            for revision, one in self.replica.serves.items()
        }
        return self.replica.model_copy(update={"serves": serves})


class Announcements:
    """One replica's part in it: its name, the address at which the others reach it, what it serves, if it takes more.

    `every`: seconds between two announcements.
    """

    def __init__(
        self, jetstream: JetStreamContext, name: str, url: str, hosting: BaseModels, *, gate: Gate, every: float
    ) -> None:
        self._bucket = KeyValue(jetstream, REPLICAS)
        self._ttl = REPLICAS.ttl.total_seconds()
        self._name = name
        self._url = url
        self._hosting = hosting
        self._gate = gate
        self._every = every
        self._started = time.time()
        self._peers: dict[str, _Peer] = {}
        self._own_received_at = -self._ttl

    @property
    def own(self) -> Replica:
        """This replica as of now."""
        serves = {one.base.revision: _serving(one) for one in self._hosting.all}
        draining = self._gate.draining
        return Replica(name=self._name, url=self._url, started=self._started, draining=draining, serves=serves)

    @property
    def others(self) -> list[Replica]:
        """The others that are alive, their loads with what was sent to them since."""
        since = time.monotonic() - self._ttl
        return [one.now for one in self._peers.values() if one.at > since and not one.unreachable]

    def gone(self, name: str) -> bool:
        """Whether a replica has stopped or died. False while no announcements arrive: nothing is known then."""
        since = time.monotonic() - self._ttl
        peer = self._peers.get(name)
        return self._own_received_at > since and (peer is None or peer.at <= since)

    @contextmanager
    def sending(self, name: str, revision: str) -> Iterator[None]:
        """Inside this context a request of ours for that base model is at the other replica."""
        peer = self._peers.get(name)
        if peer is None:
            yield
            return
        # On this announcement: the next one counts the request itself.
        peer.sent[revision] = peer.sent.get(revision, 0) + 1
        try:
            yield
        finally:
            peer.sent[revision] -= 1

    def unreachable(self, name: str) -> None:
        """Nothing is sent there until it announces itself again."""
        if peer := self._peers.get(name):
            peer.unreachable = True

    async def announce(self, ready: asyncio.Event) -> None:
        """Announces this replica, once it is ready, until cancelled; then removes it.

        Regularly, and at once when its adapters change or it begins to drain.
        """
        await ready.wait()
        due, published = 0.0, None
        try:
            while True:
                own, now = self.own, time.monotonic()
                news = (own.draining, {revision: one.adapters for revision, one in own.serves.items()})
                if now >= due or news != published:
                    due, published = now + self._every, news
                    await self._put(own)
                await asyncio.sleep(LOOK_EVERY)
        finally:
            await self._leave()

    async def watch(self) -> None:
        """Watches the others until cancelled."""
        while True:
            try:
                async with aclosing(self._bucket.watch()) as changes:
                    async for name, value in changes:
                        self.receive(name, value)
            except AWAY as error:
                log.warning("replicas_not_watched", reason=describe(error))
            await asyncio.sleep(self._every)

    async def _put(self, own: Replica) -> None:
        try:
            await self._bucket.put(own.name, own.model_dump_json().encode())
        except AWAY as error:
            log.warning("replica_not_announced", reason=describe(error))

    async def _leave(self) -> None:
        try:
            await self._bucket.delete(self._name)
        except AWAY as error:
            log.warning("replica_not_removed", reason=describe(error), forgotten_in=self._ttl)

    def receive(self, name: str, value: bytes | None) -> None:
        """Take a replica's announcement from the bucket; None: it has stopped."""
        if value is None:
            self._peers.pop(name, None)
            return
        try:
            replica = Replica.model_validate_json(value)
        except ValidationError as error:
            log.warning("announcement_refused", replica=name, reason=str(error))
            return
        if replica.name != name:
            log.warning("announcement_refused", replica=name, reason=f"it is of {replica.name!r}")
        elif name != self._name:
            self._peers[name] = _Peer(replica, time.monotonic())
        elif replica.url == self._url:
            self._own_received_at = time.monotonic()
        else:
            log.error("two_replicas_have_one_name", replica=name, url=self._url, other_url=replica.url)


def _serving(hosted: ServedBaseModel) -> Serving:
    running, waiting = hosted.backend.load
    # An adapter on its way into a slot will be there when a request for it arrives.
    held = [name for name, state in hosted.adapters.states.items() if isinstance(state, Loading | Loaded | Draining)]
    return Serving(adapters=frozenset(held), running=running, waiting=waiting, rows=hosted.backend.rows)
