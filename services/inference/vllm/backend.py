"""The `Backend` of a base model that vLLM servers hold."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from services.inference.engine_thread import Finished, Token
from services.inference.errors import ApiError, BadRequest, Busy
from services.inference.vllm.errors import NotServed, Refused, ServerAway, VllmError
from services.inference.vllm.fleet import RETRY_AFTER, Server, VllmFleet

if TYPE_CHECKING:
    from lora_core.engine import Request
    from lora_core.sampling import Adapters as AdapterChoice


class VllmBackend:
    """Passes requests on, each to a server that has proved its adapter.

    stops: tokens that end an answer. rows: requests that the servers decode at once; `queue_limit` more may wait.
    """

    holds_calls = False
    """Their form is one of llguidance's grammars (Lark), which servers with another library do not take."""

    def __init__(self, fleet: VllmFleet, *, stops: frozenset[int], rows: int, queue_limit: int) -> None:
        self._fleet = fleet
        self._stops = stops
        self._queue_limit = queue_limit
        self.rows = rows

    @property
    def load(self) -> tuple[int, int]:
        running = self._fleet.running
        return min(running, self.rows), max(0, running - self.rows)

    @asynccontextmanager
    async def generate(self, request: "Request") -> AsyncIterator[AsyncIterator[Token | Finished]]:
        """Tokens as they come, ended by `Finished`; leaving the context closes the stream, which cancels the rest.

        Until the first token another server may take the request over; after it, a server that breaks off ends the
        answer with an error.

        Raises:
            ApiError: the request cannot be served, or not now.
        """
        adapter_id = _single(request.adapter)
        if self._fleet.running >= self.rows + self._queue_limit:
            raise Busy(
                f"{self.load[1]} requests are waiting already; try again.", code="queue_full", retry_after=RETRY_AFTER
            )
        async with AsyncExitStack() as stream:
            yield await self._begin(stream, adapter_id, request)

    async def likelihoods(self, prompt_ids: list[int], adapter: "AdapterChoice") -> list[float]:
        return [one.logprob for one in await self.scores(prompt_ids, adapter, 0)]

    async def scores(self, prompt_ids: list[int], adapter: "AdapterChoice", alternatives: int) -> list[Token]:
        retries = _Retries(self._fleet)
        while True:
            async with self._fleet.serving(_single(adapter), retries.tried) as (server, name):
                try:
                    return await server.client.scores(name, prompt_ids, alternatives)
                except VllmError as error:
                    await retries.after(server, error)

    async def embed(self, texts: Sequence[str | list[int]], adapter: "AdapterChoice") -> npt.NDArray[np.float32]:  # noqa: ARG002
        raise BadRequest(
            "this base model is served by vLLM servers that generate, which give no embeddings.",
            code="embeddings_unsupported",
            param="model",
        )

    async def close(self) -> None:
        await self._fleet.close()

    async def _begin(
        self, stream: AsyncExitStack, adapter_id: str | None, request: "Request"
    ) -> AsyncIterator[Token | Finished]:
        retries = _Retries(self._fleet)
        while True:
            async with AsyncExitStack() as attempt:
                server, name = await attempt.enter_async_context(self._fleet.serving(adapter_id, retries.tried))
                try:
                    deliveries = await attempt.enter_async_context(server.client.stream(name, request, self._stops))
                    first = await anext(deliveries)
                except VllmError as error:
                    await retries.after(server, error)
                    continue
                stream.push_async_exit(attempt.pop_all())
                return _from(first, deliveries)


class _Retries:
    """Decides what a server's failure means for a request that has no token yet."""

    def __init__(self, fleet: VllmFleet) -> None:
        self._fleet = fleet
        self.tried: set[Server] = set()
        self._reloaded = False

    async def after(self, server: Server, error: VllmError) -> None:
        """Returns if it may be sent again, to a server that is not among `tried`.

        Raises:
            ApiError: it may not.
        """
        if isinstance(error, Refused):
            raise BadRequest(f"vLLM refuses this request: {error}", code="invalid_value") from error
        # A restarted server lacks its adapters and gets them back once that is noticed; an unavailable one is left out.
        await self._fleet.check(server)
        if isinstance(error, NotServed) and not self._reloaded:
            self._reloaded = True
        elif isinstance(error, ServerAway | NotServed):
            self.tried.add(server)
        else:
            raise _unavailable(error) from error


async def _from(first: Token | Finished, rest: AsyncIterator[Token | Finished]) -> AsyncIterator[Token | Finished]:
    yield first
    try:
        async for delivery in rest:
            yield delivery
    except VllmError as error:
        raise _unavailable(error) from error


def _unavailable(error: VllmError) -> ApiError:
    return Busy(
        f"the vLLM server of this request failed: {error}; try again.",
        code="backend_unavailable",
        retry_after=RETRY_AFTER,
    )


def _single(adapter: "AdapterChoice") -> str | None:
    if adapter is None or isinstance(adapter, str):
        return adapter
    raise BadRequest(
        "this base model is served by vLLM, which answers with one adapter at a time; name one.",
        code="weighted_sets_unsupported",
        param="model",
    )
