"""Stops work for a client that has disconnected."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from typing import TypeVar

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The work's result, or None once the client has gone; the work is cancelled then.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    watching = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        for one in (task, watching):
            one.cancel()
        await asyncio.gather(task, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    # Not `request.is_disconnected()`: it cancels its own look, and behind a middleware that wraps `receive` in a task
    # group (starlette's BaseHTTPMiddleware) the look ends before the answer, each time. The body has been read, so what
    # comes next is the disconnect.
    while (await request.receive())["type"] != "http.disconnect":
        continue


class ClosingStream(StreamingResponse):
    """A streamed response that closes what it streams from, whenever its client goes.

    A client that goes before the first byte ends the response without its content having begun: an `async with`
    within the content is never entered then, and only garbage collection would find what it should have closed.
    """

    def __init__(
        self,
        content: AsyncIterator[str],
        source: AsyncGenerator[object, None],
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # The response is cancelled when its client goes; closing must not be.
            with anyio.CancelScope(shield=True):
                await self._source.aclose()
