"""Who answers a request: a model here, or another replica."""

from contextlib import AsyncExitStack

from fastapi import Request, Response

from fleet_kit.auth import Caller
from services.inference.chosen import Chosen
from services.inference.http.access import answered_by
from services.inference.http.elsewhere import elsewhere
from services.inference.http.schemas import GenerationRequest
from services.inference.parts import InferenceParts
from services.inference.router_client import Query


async def choose(
    body: GenerationRequest,
    query: Query,
    request: Request,
    caller: Caller,
    *,
    parts: InferenceParts,
    held: AsyncExitStack,
) -> Chosen | Response:
    """Who answers here, or the answer of another replica. held: see `Generator.secure`."""
    standing = f"{caller.subject}\0{body.end_user}"
    chosen = await parts.generator.choose(body.model, query, caller, body.fallback, standing=standing)
    if (other := await elsewhere(request, chosen, parts)) is not None:
        return other
    secured = await parts.generator.secure(chosen, query, caller, held, -body.priority)
    answered_by(request, secured)
    return secured
