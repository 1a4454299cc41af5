"""A request's body as it arrives: counted, timed, and held in memory only where its route declares JSON."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from fleet_events.strict_json import read_json
from fleet_kit.errors import Problem
from fleet_kit.http_limits import BodyRule
from fleet_kit.settings import HttpSettings

__all__ = ["Body", "BodyPlaces", "ClientGone"]

_IN_A_THREAD = 64 * 1024
"""Bytes of JSON beyond which reading it would hold the event loop for milliseconds."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Body:
    """The body of one request.

    Time counts only while the client is waited for: an endpoint that takes long with a part costs the client nothing.
    """

    def __init__(self, receive: Receive, headers: Headers, rule: BodyRule, settings: HttpSettings) -> None:
        self._receive = receive
        self._headers = headers
        self._rule = rule
        self._settings = settings
        self._received = 0
        self._waited = 0.0
        self.declared = _content_length(headers)
        self.present = "transfer-encoding" in headers or bool(self.declared)
        self.complete = not self.present

    @property
    def streamed(self) -> bool:
        """Whether it goes to the endpoint as it comes."""
        return self._rule.streamed

    def check(self) -> None:
        """What can be refused before the first byte.

        Raises:
            Problem: 413 over the route's limit, 415 for a coding, or for a media type that is not JSON where JSON is
                expected.
        """
        if self.declared is not None and self.declared > self._rule.largest:
            raise self._too_large()
        if self.present and self._headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(
                415, "Unsupported media type", "send the body without Content-Encoding", field="content-encoding"
            )
        media = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        json = media in {"", "application/json"} or (media.startswith("application/") and media.endswith("+json"))
        if self.present and not self._rule.streamed and not json:
            detail = f"this endpoint reads application/json, not {media[:100]!r}"
            raise Problem(415, "Unsupported media type", detail, field="content-type")

    async def receive(self) -> Message:
        """The next ASGI message.

        Raises:
            Problem: 408 for a body slower than the least pace, 413 for one that grows over the route's limit.
        """
        if self.complete:
            return await self._receive()
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._patience()):
                message = await self._receive()
        except TimeoutError:
            detail = (
                f"the body stopped after {self._received} bytes; send at least {self._settings.http_body_pace} bytes/s"
            )
            raise Problem(408, "Request timeout", detail, field="body") from None
        self._waited += time.monotonic() - begun
        if message["type"] != "http.request":
            self.complete = True
            return message
        self._received += len(message.get("body", b""))
        if self._received > self._rule.largest:
            raise self._too_large()
        self.complete = not message.get("more_body", False)
        return message

    async def read_json_body(self) -> bytes:
        """The whole body, checked by the one JSON reader.

        Raises:
            Problem: also 422, naming the place in the document.
            ClientGone: the connection was closed.
        """
        parts: list[bytes] = []
        while not self.complete:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientGone
            parts.append(message.get("body", b""))
        body = b"".join(parts)
        if body:
            try:
                await asyncio.to_thread(read_json, body) if len(body) > _IN_A_THREAD else read_json(body)
            except ValueError as error:
                raise _not_json(str(error)) from None
        return body

    def replaying(self, body: bytes) -> Receive:
        """An ASGI `receive` that gives a body which was read already, then what the connection sends further."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if given:
                return await self._receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive

    def _patience(self) -> float:
        allowed = self._settings.http_body_seconds + self._received / self._settings.http_body_pace
        return max(0.0, allowed - self._waited)

    def _too_large(self) -> Problem:
        largest = self._rule.largest
        return Problem(413, "Body too large", f"the body is over {largest} bytes", field="body", limit=largest)


class BodyPlaces:
    """How many bodies may be under way at once in this process, in all and of one caller."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, subject: str) -> Iterator[None]:
        """A place, given back when the body was read.

        Raises:
            Problem: 429 where the caller's own places are taken, 503 where all are.
        """
        if self._taken[subject] >= self._settings.http_bodies_a_caller:
            detail = f"{self._taken[subject]} bodies of this caller are being received; finish them first"
            raise Problem(429, "Too many requests", detail, retry_after=1)
        if self._taken.total() >= self._settings.http_bodies:
            raise Problem(503, "Temporarily unavailable", "too many bodies are being received", retry_after=1)
        self._taken[subject] += 1
        try:
            yield
        finally:
            self._taken[subject] -= 1
            self._taken += Counter()  # a caller without a body leaves no entry


def _content_length(headers: Headers) -> int | None:
    # The server has checked that it is a number.
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else None


def _not_json(reason: str) -> Problem:
    place, found, _ = reason.partition(": ")
    named = found and " " not in place
    return Problem(
        422, "Invalid request", reason if named else f"body: not JSON: {reason}", field=place if named else "body"
    )
