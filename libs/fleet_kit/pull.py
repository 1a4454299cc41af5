"""Takes messages from a durable as they come: waits for the first ones, and asks for more once those are handled.

nats-py's own fetch has a task for each message of a batch, and waits until the batch is full or its time is up.
"""

import asyncio
import json
from collections import deque

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Header, StatusCode

from fleet_kit.faults import describe

__all__ = ["Pull"]

log = structlog.get_logger()

EXPIRES = 5.0
"""Seconds that the server keeps a request for messages. A request that a reconnect lost is made again after that."""
PAUSE = 0.5
"""Seconds after an answer that is none: the durable is not there, or the server is."""
_QUIET = frozenset({StatusCode.NO_MESSAGES.value, StatusCode.REQUEST_TIMEOUT.value})


class Pull:
    """Requests of one process to one durable, one at a time."""

    def __init__(self, client: Client, stream: str, durable: str, inbox: str) -> None:
        """`inbox` is a prefix of subjects that this user may subscribe to."""
        self._client = client
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = f"{inbox}.{client._nuid.next().decode()}"
        self._number = 0
        """Of the request: the answer that ends one comes to a subject of its own."""
        self._wanted = 0
        """Messages that the open request may still bring; 0 when none is open."""
        self._arrived: deque[Msg] = deque()
        self._changed = asyncio.Event()
        self._fault = False
        self._closed = False
        self._subscription: Subscription | None = None

    @property
    def unfinished(self) -> bool:
        """Whether messages have arrived, or may still arrive without a further request."""
        return bool(self._arrived) or self._wanted > 0

    async def open(self) -> None:
        """Subscribe to the answers."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._take)

    async def close(self) -> None:
        """Request no more; `next` returns what has arrived, then nothing."""
        self._closed = True
        self._changed.set()
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except nats.errors.Error as error:
                log.debug("pull_not_closed", reason=describe(error))

    async def next(self, most: int) -> list[Msg]:
        """Up to that many messages, as soon as there are any; none after some seconds, and none once it is closed."""
        if not self._arrived and not self._closed:
            try:
                if not self._wanted:
                    await self._ask(most)
                async with asyncio.timeout(EXPIRES + PAUSE):
                    while not self._arrived and self._wanted and not self._closed:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                self._wanted = 0
            except nats.errors.Error as error:
                log.info("pull_waiting", reason=describe(error))
                self._wanted, self._fault = 0, True
        if self._fault and not self._arrived and not self._closed:
            await asyncio.sleep(PAUSE)
        self._fault = False
        if self._closed:
            self._wanted = 0
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def _ask(self, most: int) -> None:
        self._number += 1
        self._wanted = most
        # With both, the server waits for a first message and ends the request once there are no more.
        request = {"batch": most, "expires": int(EXPIRES * 1e9), "no_wait": True}
        await self._client.publish(self._request, json.dumps(request).encode(), reply=f"{self._inbox}.{self._number}")

    async def _take(self, message: Msg) -> None:
        status = (message.headers or {}).get(Header.STATUS) if not message.reply else None
        if status is None:
            self._arrived.append(message)
            self._wanted = max(0, self._wanted - 1)
        elif message.subject == f"{self._inbox}.{self._number}":
            self._wanted = 0
            self._fault = status not in _QUIET
            if self._fault:
                log.info("durable_unavailable", request=self._request, status=status)
        self._changed.set()
