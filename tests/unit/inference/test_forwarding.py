"""What is passed to another replica and back, and when this one answers after all."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message

from fleet_kit.acting_for import ACT_FOR
from services.inference.replicas import forwarding
from services.inference.replicas.forwarding import ANSWERED_BY, HOP, AnsweredBy, Forwarding
from services.inference.replicas.selection import Replica, Serving

BASE = "sha256-of-the-base"
BODY = b'{"model": "law-lora", "messages": [], "stream": false}'
Handler = Callable[[httpx.Request], Any]


def replica(name: str, *adapters: str) -> Replica:
    serving = Serving(adapters=frozenset(adapters), running=0, waiting=0, rows=8)
    return Replica(name=name, url=f"http://{name}:8105", started=1.0, serves={BASE: serving})


class Peers:
    """This replica holds nothing, the other one holds the adapter."""

    def __init__(self) -> None:
        self.own = replica("here")
        self.others = [replica("there", "law")]
        self.lost: list[str] = []
        self.underway = 0
        self.is_gone = False

    def gone(self, name: str) -> bool:
        return self.is_gone

    def unreachable(self, name: str) -> None:
        self.lost.append(name)

    @contextmanager
    def sending(self, name: str, revision: str) -> Iterator[None]:
        self.underway += 1
        try:
            yield
        finally:
            self.underway -= 1


@pytest.fixture
def peers() -> Peers:
    return Peers()


Answer = Callable[..., Any]


@pytest.fixture
async def answer(peers: Peers) -> AsyncIterator[Answer]:
    """`await answer(handler)`: what the request gets from elsewhere; `handler` is the other replica."""
    clients = []

    async def ask(handler: Handler, *adapters: str, **headers: str) -> Response | None:
        client = httpx.AsyncClient(transport=httpx.MockTransport(handler), timeout=forwarding.TIMEOUT)
        clients.append(client)
        chosen: Any = SimpleNamespace(
            adapters=[SimpleNamespace(adapter_id=one) for one in adapters or ("law",)],
            base=SimpleNamespace(revision=BASE),
        )
        return await Forwarding(peers, client, 1.25).answer(request(headers), chosen)  # type: ignore[arg-type]

    yield ask
    for client in clients:
        await client.aclose()


def request(headers: dict[str, str]) -> Request:
    sent = {"Authorization": "Bearer of-the-caller", "Content-Type": "application/json", "Cookie": "c", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
    }
    messages: list[Message] = [{"type": "http.request", "body": BODY, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return Request(scope, receive)


async def whole(response: Response) -> tuple[dict[str, str], bytes]:
    """Headers and body as an ASGI server would send them."""
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await response({"type": "http", "method": "POST", "headers": []}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return headers, b"".join(one.get("body", b"") for one in sent[1:])


async def test_the_body_the_callers_token_and_the_hop_are_sent_and_nothing_else_of_the_caller(answer: Answer) -> None:
    seen: list[httpx.Request] = []

    async def there(sent: httpx.Request) -> httpx.Response:
        seen.append(sent)
        return httpx.Response(200, json={"ok": True}, headers={ANSWERED_BY: "there", "Set-Cookie": "x=1"})

    headers, body = await whole(await answer(there))
    assert body == b'{"ok":true}'
    assert headers[ANSWERED_BY.lower()] == "there"
    assert "set-cookie" not in headers
    [sent] = seen
    assert (str(sent.url), sent.content) == ("http://there:8105/v1/chat/completions", BODY)
    assert sent.headers["authorization"] == "Bearer of-the-caller"
    assert sent.headers[HOP] == "here"
    assert "cookie" not in sent.headers


async def test_what_narrows_the_callers_token_here_narrows_it_at_the_other_replica(answer: Answer) -> None:
    seen: list[httpx.Request] = []

    async def there(sent: httpx.Request) -> httpx.Response:
        seen.append(sent)
        return httpx.Response(200, json={})

    await whole(await answer(there, **{ACT_FOR: "alpha,gamma"}))
    assert seen[0].headers[ACT_FOR] == "alpha,gamma"
    await whole(await answer(there))
    assert ACT_FOR not in seen[1].headers


async def test_a_request_that_was_forwarded_once_stays_also_where_another_replica_holds_its_adapter(
    answer: Answer,
) -> None:
    assert await answer(_never, **{HOP: "there"}) is None


async def test_a_request_stays_where_its_adapter_is(answer: Answer, peers: Peers) -> None:
    peers.own = replica("here", "law")
    assert await answer(_never) is None


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError]
)
async def test_a_replica_that_cannot_be_reached_is_left_out_and_the_request_is_answered_here(
    answer: Answer, peers: Peers, error: type[httpx.TransportError]
) -> None:
    async def there(sent: httpx.Request) -> httpx.Response:
        raise error("no", request=sent)

    assert await answer(there) is None
    assert (peers.lost, peers.underway) == (["there"], 0)


@pytest.mark.parametrize("status", [404, 409, 422, 503])
async def test_what_the_other_replica_refuses_is_answered_here(answer: Answer, peers: Peers, status: int) -> None:
    async def there(sent: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"error": {}})

    assert await answer(there) is None
    assert (peers.lost, peers.underway) == ([], 0)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_what_would_be_no_better_here_is_passed_back(answer: Answer, status: int) -> None:
    async def there(sent: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"error": {"code": "why"}}, headers={"Retry-After": "7"})

    response = await answer(there)
    headers, body = await whole(response)
    assert (response.status_code, headers["retry-after"], body) == (status, "7", b'{"error":{"code":"why"}}')


async def test_a_refusal_after_a_long_wait_is_passed_back(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE", 0.0)

    async def there(sent: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={})

    assert (await answer(there)).status_code == 503


async def test_a_request_at_a_replica_that_is_forgotten_meanwhile_is_answered_here(
    answer: Answer, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "LOOK_EVERY", 0.01)
    ended = asyncio.Event()

    async def there(sent: httpx.Request) -> httpx.Response:
        try:
            peers.is_gone = True
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    assert await asyncio.wait_for(answer(there), 2) is None
    assert ended.is_set()


class Events(httpx.AsyncByteStream):
    """A stream of events; `error` breaks it after them."""

    def __init__(self, *events: bytes, error: Exception | None = None) -> None:
        self._events, self._error = events, error
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        self.closed = True


def _streamed(events: Events) -> Handler:
    async def there(sent: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=events)

    return there


async def test_a_stream_is_passed_on_and_closed_at_its_end(answer: Answer, peers: Peers) -> None:
    events = Events(b"data: 1\n\n", b"data: [DONE]\n\n")
    response = await answer(_streamed(events))
    assert (peers.underway, events.closed) == (1, False)
    _, body = await whole(response)
    assert body == b"data: 1\n\ndata: [DONE]\n\n"
    assert (peers.underway, events.closed) == (0, True)


async def test_a_stream_that_breaks_ends_with_an_error_and_without_done(answer: Answer) -> None:
    events = Events(b"data: 1\n\n", error=httpx.ReadError("reset"))
    _, body = await whole(await answer(_streamed(events)))
    assert body.startswith(b"data: 1\n\n")
    assert b'"code": "replica_lost"' in body
    assert b"[DONE]" not in body


async def test_a_stream_that_falls_silent_ends_with_an_error(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "SILENCE", 0.05)

    class Silent(Events):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await asyncio.Event().wait()

    _, body = await whole(await answer(_streamed(Silent())))
    assert b'"code": "replica_lost"' in body


async def test_a_stream_without_a_reader_is_closed_with_its_request(answer: Answer, peers: Peers) -> None:
    events = Events(b"data: 1\n\n")
    response = await answer(_streamed(events))

    async def gone(message: Message) -> None:
        raise OSError("the client has gone")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "headers": [], "asgi": {"spec_version": "2.4"}}
    with pytest.raises(ClientDisconnect):
        await response(scope, receive, gone)
    assert (peers.underway, events.closed) == (0, True)


async def test_every_response_names_the_replica_that_gave_it() -> None:
    plain = AnsweredBy(Response(b"", 204), replica="here")
    passed = AnsweredBy(Response(b"", 204, headers={ANSWERED_BY: "there"}), replica="here")
    for app, name in ((plain, "here"), (passed, "there")):
        headers, _ = await whole(app)  # type: ignore[arg-type]
        assert headers[ANSWERED_BY.lower()] == name


async def _never(sent: httpx.Request) -> httpx.Response:
    raise AssertionError("it was forwarded")
