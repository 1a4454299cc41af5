"""Clients that go away: a real server, with the middleware that services have."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.types import Message

from services.inference.http.disconnect import ClosingStream, unless_gone


class Body(BaseModel):
    name: str


class Source:
    """What an answer streams from; it ends when it is closed, and counts that."""

    def __init__(self) -> None:
        self.closed = 0

    async def pieces(self) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "piece"
                await asyncio.sleep(0.01)
        finally:
            await asyncio.sleep(0)  # as leases do, which are given back through a queue
            self.closed += 1


@pytest.fixture
async def cancelled() -> AsyncIterator[tuple[int, asyncio.Queue[str]]]:
    """Port of a server whose work lasts a minute, and the names of requests whose work was cancelled."""
    names: asyncio.Queue[str] = asyncio.Queue()
    app = FastAPI()

    @app.middleware("http")
    async def passed(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call(request)

    @app.post("/work")
    async def work(body: Body, request: Request) -> str:
        async def long() -> str:
            try:
                await asyncio.sleep(0 if body.name == "quick" else 60)
            except asyncio.CancelledError:
                names.put_nowait(body.name)
                raise
            return "done"

        return await unless_gone(request, long()) or "gone"

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1], names
    server.should_exit = server.force_exit = True
    await running


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", [0.0, 0.001, 0.1])
async def test_work_is_cancelled_soon_after_its_client_has_gone(
    cancelled: tuple[int, asyncio.Queue[str]], after: float, reset: bool
) -> None:
    port, names = cancelled
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"name": "long"}'
    writer.write(b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    await asyncio.sleep(after)
    if reset:
        writer.transport.abort()
    else:
        writer.close()
    if after:
        assert await asyncio.wait_for(names.get(), 10) == "long"
    else:  # it may have gone before its work began
        with suppress(TimeoutError):
            assert await asyncio.wait_for(names.get(), 1) == "long"


async def test_a_client_that_waits_gets_its_answers_on_one_connection(
    cancelled: tuple[int, asyncio.Queue[str]],
) -> None:
    port, names = cancelled
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"name": "quick"}'
    for _ in range(3):
        writer.write(b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(6) == b'"done"'
    writer.close()
    assert names.empty()


@pytest.mark.parametrize("sent", [0, 1, 3])
async def test_what_a_stream_comes_from_is_closed_wherever_its_client_went(sent: int) -> None:
    source = Source()
    pieces = source.pieces()
    await anext(pieces)  # the first piece is fetched before the response begins
    gone = asyncio.Event()
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)
        if len(messages) > sent:
            gone.set()
            await asyncio.sleep(60)

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def content() -> AsyncIterator[str]:
        async for piece in pieces:
            yield piece

    response = ClosingStream(content(), pieces, media_type="text/event-stream", headers={})
    await asyncio.wait_for(response({"type": "http"}, receive, send), 10)
    assert source.closed == 1
