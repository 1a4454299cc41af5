"""What gives a base model's tokens: the engine of this process (`LocalBackend`), or servers elsewhere."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from services.inference.engine_thread import EngineThread, Finished, Token

if TYPE_CHECKING:
    from lora_core.engine import ArrowEngine, Request
    from lora_core.sampling import Adapters as AdapterChoice


class Backend(Protocol):
    """Answers for one base model. The adapters that a request names are loaded, and stay so until it is done."""

    @property
    def load(self) -> tuple[int, int]:
        """(rows running, requests waiting), as of now."""
        ...

    @property
    def rows(self) -> int:
        """Requests decoded together at most."""
        ...

    @property
    def holds_calls(self) -> bool:
        """Whether an answer can be held to the form of calls of functions."""
        ...

    def generate(self, request: "Request") -> AbstractAsyncContextManager[AsyncIterator[Token | Finished]]:
        """Tokens as they come, ended by `Finished`. Leaving the context early cancels the rest. Raises `ApiError`."""
        ...

    async def likelihoods(self, prompt_ids: list[int], adapter: "AdapterChoice") -> list[float]:
        """Log-probability of each token after the first, given those before it."""
        ...

    async def embed(self, texts: Sequence[str | list[int]], adapter: "AdapterChoice") -> npt.NDArray[np.float32]:
        """Vectors of length 1 of texts or their token ids, [texts, hidden]."""
        ...

    async def close(self) -> None:
        """End what runs; its requests get an error."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A back end that also gives which tokens were likeliest at each place of a prompt."""

    async def scores(self, prompt_ids: list[int], adapter: "AdapterChoice", alternatives: int) -> list[Token]:
        """Each token after the first, given those before it, with the likeliest ones at its place."""
        ...


@runtime_checkable
class ReadsOnce(Protocol):
    """A back end that reads a prompt once for several answers."""

    def together(
        self, requests: "Sequence[Request]"
    ) -> AbstractContextManager[Sequence[AbstractAsyncContextManager[AsyncIterator[Token | Finished]]]]:
        """For each request what `generate` gives; the first that is entered hands all of them over."""
        ...


class LocalBackend:
    """The engine of this process, through the one thread that owns it."""

    holds_calls = True

    def __init__(self, thread: EngineThread, engine: "ArrowEngine") -> None:
        self._thread, self._engine = thread, engine

    @property
    def load(self) -> tuple[int, int]:
        return self._thread.load

    @property
    def rows(self) -> int:
        return self._thread.rows

    def generate(self, request: "Request") -> AbstractAsyncContextManager[AsyncIterator[Token | Finished]]:
        return self._thread.generate(request)

    def together(
        self, requests: "Sequence[Request]"
    ) -> AbstractContextManager[Sequence[AbstractAsyncContextManager[AsyncIterator[Token | Finished]]]]:
        return self._thread.together(requests)

    async def likelihoods(self, prompt_ids: list[int], adapter: "AdapterChoice") -> list[float]:
        return await self._thread.call(partial(self._engine.logprobs, prompt_ids[:1], prompt_ids[1:], adapter))

    async def scores(self, prompt_ids: list[int], adapter: "AdapterChoice", alternatives: int) -> list[Token]:
        read = partial(self._engine.scores, prompt_ids[:1], prompt_ids[1:], adapter, alternatives)
        found = await self._thread.call(read)
        return [Token(one, *score) for one, score in zip(prompt_ids[1:], found, strict=True)]

    async def embed(self, texts: Sequence[str | list[int]], adapter: "AdapterChoice") -> npt.NDArray[np.float32]:
        found = []
        # A batch of rows at a time: requests that generate take their steps in between.
        for first in range(0, len(texts), self.rows):
            some = texts[first : first + self.rows]
            found.append(await self._thread.call(partial(self._engine.encode, some, adapter)))
        return np.concatenate(found)

    async def close(self) -> None:
        await self._thread.close()
