"""Sign in on the page of an identity provider."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from fleet_kit.errors import Problem
from services.console.pages.sign_in import SIGN_IN, form_page, own_page, signed_in
from services.console.parts import ThisService
from services.console.provider import CALLBACK, Attempt, Provider

__all__ = ["BEGIN", "CALLBACK", "router"]

BEGIN: Final = "/console/sign-in/provider"
COOKIE: Final = "lorafleet_sign_in"
MINUTES: Final = 10
router = APIRouter(include_in_schema=False)


@router.get(BEGIN)
async def begin(service: ThisService, next: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """Send the browser to the provider."""
    if not service.settings.oidc_issuer:
        raise Problem(404, "Not found", "no identity provider is configured (LORAFLEET_OIDC_ISSUER)")
    attempt = Attempt.begin(own_page(next))
    answer = RedirectResponse(await Provider(service.settings, service.http).address(attempt), 303)
    # Lax, not Strict: the provider's redirect is another site's request, and has to bring it.
    answer.set_cookie(
        COOKIE,
        attempt.cookie,
        max_age=60 * MINUTES,
        path=SIGN_IN,
        secure=service.settings.over_tls,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get(CALLBACK)
async def answered(
    *,
    request: Request,
    service: ThisService,
    code: Annotated[str, Query(max_length=4000)] = "",
    state: Annotated[str, Query(max_length=200)] = "",
    iss: Annotated[str, Query(max_length=500)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Begin a session with the token for the provider's code, in the browser that began to sign in alone."""
    attempt = Attempt.of_cookie(request.cookies.get(COOKIE, ""))
    try:
        if attempt is None or not attempt.answered_by(state):
            raise Problem(401, "Not authenticated", "this answer belongs to no sign-in of this browser; begin again")
        if error or not code:
            raise Problem(401, "Not authenticated", f"the provider refuses: {error or 'it sent no code'}")
        token = await Provider(service.settings, service.http).token(code, attempt, iss)
        answer = await signed_in(request, service, token, attempt.next)
    except Problem as problem:
        next = attempt.next if attempt else own_page("")
        answer = form_page(request, service, next=next, problem=problem)
    answer.delete_cookie(COOKIE, path=SIGN_IN)
    return answer
