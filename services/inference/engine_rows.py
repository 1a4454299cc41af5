"""What comes of a request to the engine: tokens, and the end of its answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from services.inference.errors import ServerFault

if TYPE_CHECKING:
    from lora_core.sampling import Request

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer, or of a prompt."""

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()
    """(token, log-probability) of the likeliest at its place, as many as requested."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer's end; the stop token is not among its tokens."""

    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Broken:
    """The engine failed under this request."""

    error: BaseException


Delivery = Token | Finished | Broken


@dataclass(eq=False, slots=True)
class Row:
    """One request on its way through the engine; `cancelled` is set from outside."""

    request: "Request"
    deliveries: "asyncio.Queue[Delivery]" = field(default_factory=asyncio.Queue)
    arrived: float = field(default_factory=time.monotonic)
    cancelled: bool = False


async def deliveries(row: Row) -> AsyncIterator[Token | Finished]:
    """What comes of a row, ended by `Finished`. Raises ServerFault where the engine failed under it."""
    while True:
        delivery = await row.deliveries.get()
        if isinstance(delivery, Broken):
            if isinstance(delivery.error, ServerFault):
                raise delivery.error
            raise ServerFault("the engine failed under this request", code="engine_failed") from delivery.error
        yield delivery
        if isinstance(delivery, Finished):
            return
