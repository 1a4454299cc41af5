"""`Siblings`: several answers to one prompt, with one lease of its adapters and one reading of the prompt."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from services.inference.engine_thread import Stream


class Siblings:
    """Answers that start together.

    lease: of their adapters. It is taken by the first answer and given back by the last, or by `close`, so that rows
    of the engine whose answer has not begun yet keep their adapters too. streams: one for each answer.
    """

    def __init__(self, lease: Callable[[], AbstractAsyncContextManager[object]], streams: Sequence[Stream]) -> None:
        self._lease, self.streams = lease, streams
        self._held = AsyncExitStack()
        self._taking = asyncio.Lock()
        self._taken = False
        self._left = len(streams)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The adapters are loaded inside, for one of the answers. Raises what the lease raises."""
        async with self._taking:
            if not self._taken:
                await self._held.enter_async_context(self._lease())
                self._taken = True
        try:
            yield
        finally:
            self._left -= 1
            if not self._left:
                await self.close()

    async def close(self) -> None:
        """Gives the adapters back."""
        await self._held.aclose()
