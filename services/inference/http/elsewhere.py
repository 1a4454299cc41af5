"""A request that another replica answers."""

from fastapi import Request, Response

from services.inference.chosen import Chosen
from services.inference.parts import InferenceParts


async def elsewhere(request: Request, chosen: Chosen, parts: InferenceParts) -> Response | None:
    """The answer of another replica; None if it is given here. Raises `Busy` if it would be and this one is drained."""
    if (answer := await parts.forwarding.answer(request, chosen)) is None:
        parts.gate.require_open()
    return answer
