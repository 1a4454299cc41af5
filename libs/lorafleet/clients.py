"""Typed Python client of the fleet's HTTP services, async and sync.

Every endpoint is written down once, in `calls`, as a `Call[T]`; both clients carry any of them out:

    with FleetClient(FleetHome.find()) as fleet:
        adapter = fleet.call(calls.adapter("verwaltungsrecht-lora-v1.0.0"))

    async with AsyncFleetClient(FleetHome.find()) as fleet:
        adapter = await fleet.call(calls.adapter("verwaltungsrecht-lora-v1.0.0"))
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from fleet_kit.text_lines import async_lines_of, lines_of
from lorafleet.errors import FleetError, ServiceError, Unreachable
from lorafleet.home import FleetHome
from lorafleet.upload import FileBody

Answer = TypeVar("Answer")
Query = Mapping[str, str | int | float | bool | None]
Upload = Sequence[tuple[str, tuple[str, bytes, str]]]
TIMEOUT = httpx.Timeout(30.0, read=300.0)


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request to one service and the type of its answer."""

    service: str
    method: str
    path: str
    answer: TypeAdapter[Answer]
    query: Query = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    ndjson: bytes | None = None
    files: Upload | None = None
    form: Mapping[str, str] | None = None
    # Where the answer lies in the reply, for lists wrapped in an object.
    inside: str = ""
    # The reply is lines of JSON.
    lines: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    # The body is this file, sent as it is read.
    file: Path | None = None

    def request(self, base: str, token: str) -> httpx.Request:
        """The HTTP request; `base` is the service's URL, `token` its bearer token."""
        headers = {"Authorization": f"Bearer {token}", **self.headers}
        if self.ndjson is not None:
            headers["Content-Type"] = "application/x-ndjson"
        body = FileBody(self.file) if self.file else None
        if body is not None:
            headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(body.bytes)}
        request = httpx.Request(
            self.method,
            base.rstrip("/") + self.path,
            params={name: str(value) for name, value in self.query.items() if value not in (None, "")},
            json=self.body,
            content=self.ndjson,
            files=self.files,
            data=dict(self.form) if self.form is not None else None,
            headers=headers,
            extensions={"timeout": TIMEOUT.as_dict()},
        )
        if body is not None:
            request.stream = body
        return request

    def read(self, response: httpx.Response) -> Answer:
        """The typed answer; raises `ServiceError` with the problem the service reports."""
        check(self.service, response)
        try:
            if self.lines:
                return self.answer.validate_python(
                    [json.loads(line) for line in lines_of(iter([response.content])) if line]
                )
            if not self.inside:
                return self.answer.validate_json(response.content or b"null")
            return self.answer.validate_python(response.json()[self.inside])
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise FleetError(f"{self.service} {self.path}: unexpected answer: {reason}") from error


def check(service: str, response: httpx.Response) -> None:
    """Raise `ServiceError` unless the response is a success."""
    if response.is_success:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    raise _refusal(service, response.status_code, problem, response.text[:200] or response.reason_phrase)


def _refusal(service: str, status: int, problem: object, text: str) -> ServiceError:
    """From problem+json (RFC 9457), or from the error object of the OpenAI API."""
    if not isinstance(problem, dict):
        return ServiceError(service, status, "", text)
    error = problem.get("error")
    if isinstance(error, dict):
        return ServiceError(service, status, "", str(error.get("message") or text), str(error.get("param") or ""))
    detail = str(problem.get("detail") or "")
    return ServiceError(
        service, status, str(problem.get("title") or ""), detail or text, str(problem.get("field") or "")
    )


def _server_sent(service: str, line: str) -> dict[str, object] | None:
    """One server-sent event's JSON; None for blank lines, comments and the end mark. Raises what went wrong mid-way."""
    if not line.startswith("data:"):
        return None
    data = line.removeprefix("data:").strip()
    if data == "[DONE]":
        return None
    chunk = json.loads(data)
    if not isinstance(chunk, dict):
        return None
    if "error" in chunk:
        raise _refusal(service, 500, chunk, data)
    return chunk


class FleetClient:
    """The fleet over HTTP, blocking. Raises `ServiceError` and `Unreachable`."""

    def __init__(self, home: FleetHome, identity: str = "admin", transport: httpx.BaseTransport | None = None) -> None:
        self._home = home
        self._token = identity
        self._http = httpx.Client(timeout=TIMEOUT, transport=transport, verify=home.trust)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def call(self, call: Call[Answer]) -> Answer:
        """Carry out a call."""
        base = self._home.service_url(call.service)
        try:
            return call.read(self._http.send(call.request(base, self._home.token(self._token))))
        except httpx.TransportError as error:
            raise Unreachable(call.service, base, str(error) or type(error).__name__) from error

    def download(self, call: Call[Answer]) -> Generator[bytes]:
        """Carry out a call whose reply is too large for memory; yields its bytes as they come."""
        base = self._home.service_url(call.service)
        try:
            response = self._http.send(call.request(base, self._home.token(self._token)), stream=True)
            try:
                if not response.is_success:
                    response.read()
                check(call.service, response)
                yield from response.iter_bytes()
            finally:
                response.close()
        except httpx.TransportError as error:
            raise Unreachable(call.service, base, str(error) or type(error).__name__) from error

    def stream(self, call: Call[Answer]) -> Iterator[dict[str, object]]:
        """Carry out a call whose reply is server-sent events; yields each event's JSON."""
        base = self._home.service_url(call.service)
        try:
            response = self._http.send(call.request(base, self._home.token(self._token)), stream=True)
            try:
                if not response.is_success:
                    response.read()
                check(call.service, response)
                for line in lines_of(response.iter_bytes()):
                    if (chunk := _server_sent(call.service, line)) is not None:
                        yield chunk
            finally:
                response.close()
        except httpx.TransportError as error:
            raise Unreachable(call.service, base, str(error) or type(error).__name__) from error


class AsyncFleetClient:
    """The fleet over HTTP, for asyncio. Raises `ServiceError` and `Unreachable`."""

    def __init__(
        self, home: FleetHome, identity: str = "admin", transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._home = home
        self._token = identity
        self._http = httpx.AsyncClient(timeout=TIMEOUT, transport=transport, verify=home.trust)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def call(self, call: Call[Answer]) -> Answer:
        """Carry out a call."""
        return await carry_out(self._http, self._home.service_url(call.service), self._home.token(self._token), call)

    def stream(self, call: Call[Answer]) -> AsyncIterator[dict[str, object]]:
        """Carry out a call whose reply is server-sent events; yields each event's JSON."""
        return stream(self._http, self._home.service_url(call.service), self._home.token(self._token), call)


async def carry_out(http: httpx.AsyncClient, base: str, token: str, call: Call[Answer]) -> Answer:
    """Carry out a call to the service at `base`. Raises `ServiceError` and `Unreachable`."""
    try:
        return call.read(await http.send(call.request(base, token)))
    except httpx.TransportError as error:
        raise Unreachable(call.service, base, str(error) or type(error).__name__) from error


async def stream(
    http: httpx.AsyncClient, base: str, token: str, call: Call[Answer]
) -> AsyncIterator[dict[str, object]]:
    """Carry out a call whose reply is server-sent events; yields each event's JSON."""
    try:
        response = await http.send(call.request(base, token), stream=True)
        try:
            if not response.is_success:
                await response.aread()
            check(call.service, response)
            async for line in async_lines_of(response.aiter_bytes()):
                if (chunk := _server_sent(call.service, line)) is not None:
                    yield chunk
        finally:
            await response.aclose()
    except httpx.TransportError as error:
        raise Unreachable(call.service, base, str(error) or type(error).__name__) from error
