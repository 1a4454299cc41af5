"""Sign in with a token or an API key of the fleet, and out again."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from fleet_kit.errors import Problem
from services.console.parts import ConsoleService, ThisService
from services.console.rendering import page
from services.console.session import MAX_TOKEN, PATH, end_session, start_session
from services.console.viewer import FORM, Submitted

__all__ = ["SIGN_IN", "form_page", "own_page", "router", "signed_in"]

SIGN_IN: Final = "/console/sign-in"
router = APIRouter(include_in_schema=False)
_ELSEWHERE: Final = frozenset({"cross-site", "same-site"})
_DIRECT: Final = frozenset({"none", "same-origin"})
"""What browsers send where a person opened the address themselves, or a page of the console led to it."""


@router.get(SIGN_IN)
async def show(request: Request, service: ThisService, next: Annotated[str, Query(max_length=2000)] = "") -> Response:
    """The form. A token behind # in the address, which no server sees, is sent at once unless another site led here.

    Such a link would sign a person in as somebody else without their doing: there the token waits for the button.
    """
    direct = request.headers.get("sec-fetch-site") in _DIRECT
    return form_page(request, service, next=own_page(next), direct=direct)


@router.post(SIGN_IN, openapi_extra=FORM)
async def sign_in(request: Request, service: ThisService) -> Response:
    """Begin a session with a token that the fleet's services take."""
    # There is no session yet whose forms could carry its mark; browsers name where a request comes from.
    if request.headers.get("sec-fetch-site") in _ELSEWHERE:
        raise Problem(403, "Form refused", "sign in from the console's own page", field="sec-fetch-site")
    form = await request.form(max_files=0, max_fields=10)
    token, wanted = str(form.get("token", "")).strip(), own_page(str(form.get("next", "")))
    try:
        return await signed_in(request, service, token, wanted)
    except Problem as error:
        if error.status not in (401, 403):
            raise
        return form_page(request, service, next=wanted, problem=error)


def form_page(
    request: Request, service: ConsoleService, *, next: str, problem: Problem | None = None, direct: bool = False
) -> Response:
    """The form, with what was refused. With `direct` a token behind # in the address is sent at once."""
    return page(
        request,
        "sign_in.html",
        None,
        status=problem.status if problem else 200,
        next=next,
        fault=problem.detail if problem else "",
        provider=bool(service.settings.oidc_issuer),
        direct=direct,
    )


async def signed_in(request: Request, service: ConsoleService, token: str, wanted: str) -> Response:
    """Begin a session; raises a `Problem` for a token that the fleet's services would refuse, or no cookie holds."""
    if len(token) > MAX_TOKEN:
        detail = f"it has {len(token)} characters, a browser keeps {MAX_TOKEN}; use a smaller token or an API key"
        raise Problem(401, "Not authenticated", detail, field="token")
    await request.app.state.verifier.verify(token)
    answer = RedirectResponse(wanted, 303)
    start_session(answer, token, secure=service.settings.over_tls)
    return answer


@router.post("/console/sign-out", openapi_extra=FORM)
async def sign_out(service: ThisService, _form: Submitted) -> Response:
    """End the session of this browser; the token itself stays good until it ends or is revoked."""
    answer = RedirectResponse(SIGN_IN, 303)
    end_session(answer, secure=service.settings.over_tls)
    return answer


def own_page(wanted: str) -> str:
    """Where to go afterwards: a page of the console, also where the address names another."""
    # A second slash or a backslash would make it another host's address.
    own = wanted.startswith(f"{PATH}/") and not set(wanted) & {"\\", "\n", "\r"} and "//" not in wanted
    return wanted if own and not wanted.startswith(SIGN_IN) else f"{PATH}/"
