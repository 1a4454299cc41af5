"""What goes wrong, as pages for people; what is not a page's answer stays problem+json."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse

from fleet_kit.errors import Problem
from fleet_kit.http import problem_response
from services.console.pages.sign_in import SIGN_IN
from services.console.rendering import page, part
from services.console.session import PATH, is_of_console

__all__ = ["install"]

_PARTIAL: Final = "hx-request"
"""Header of htmx's requests, whose answers become part of the page that is there."""


def install(app: FastAPI) -> None:
    """Answer what the kit answers with problem+json with a page, below the console's paths."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        return _answer(request, Problem(422, "Invalid request", f"{field}: {first['msg']}", field=field))


def _answer(request: Request, error: Problem) -> Response:
    if not is_of_console(request.url.path):
        return problem_response(error)
    if error.status == 401:
        return _to_sign_in(request)
    render = part if _PARTIAL in request.headers else page
    template = "error_part.html" if _PARTIAL in request.headers else "error.html"
    answer = render(request, template, None, status=error.status, error=error)
    if _PARTIAL in request.headers:
        # htmx shows only what comes with a success.
        answer.status_code = 200
        answer.headers["HX-Retarget"] = "#messages"
        answer.headers["HX-Reswap"] = "innerHTML"
    return answer


def _to_sign_in(request: Request) -> Response:
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    where = f"{SIGN_IN}?{urlencode({'next': wanted if request.method == 'GET' else PATH + '/'})}"
    if _PARTIAL in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": where})
    return RedirectResponse(where, 303)
