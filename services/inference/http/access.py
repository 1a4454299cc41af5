"""What endpoints of the /v1 API get: the open parts, and the caller with the scope that the endpoint needs."""

from typing import Annotated

from fastapi import Depends, Request

from fleet_kit.auth import Caller, require
from fleet_kit.http import dependency
from services.inference.chosen import Chosen
from services.inference.errors import Busy
from services.inference.http.quota_headers import Account
from services.inference.parts import InferenceParts, InferenceService

ThisService = Annotated[InferenceService, Depends(dependency(InferenceService))]


async def started_parts(service: ThisService) -> InferenceParts:
    """The parts; raises `Busy` until the service has started."""
    if not service.started or not service.parts.projection.caught_up.is_set():
        raise Busy("the server is starting; try again.", code="starting", retry_after=2)
    return service.parts


Parts = Annotated[InferenceParts, Depends(started_parts)]
Generates = Annotated[Caller, Depends(require("generate"))]


def counted_caller(request: Request, caller: Generates, parts: Parts) -> Caller:
    """Who asks for answers, counted against their rate."""
    parts.rates.take(caller.subject)
    parts.generator.ledger.admit(caller.subject)
    request.state.quota = Account(parts.generator.ledger, caller.subject)
    return caller


def answered_by(request: Request, chosen: Chosen) -> None:
    """Keep whose quota an answer is charged to, for its headers."""
    if (account := getattr(request.state, "quota", None)) is not None:
        account.domain = chosen.domain


LimitedCaller = Annotated[Caller, Depends(counted_caller)]
Judges = Annotated[Caller, Depends(require("feedback"))]
