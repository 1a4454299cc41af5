"""The viewer's session: a cookie that holds their own token, and what proves that a form came from a page of ours.

The console keeps nothing between two requests: who holds the cookie holds the token, for as long as the token is good.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = [
    "MAX_TOKEN",
    "SessionCookie",
    "end_session",
    "form_token",
    "form_token_is_good",
    "is_of_console",
    "start_session",
]

PATH: Final = "/console"
COOKIE: Final = "lorafleet_session"
MAX_TOKEN: Final = 3800
"""Characters of a token: browsers keep no cookie over 4096 bytes."""
_FORM: Final = b"lorafleet console form"


class SessionCookie:
    """ASGI middleware: a request for a page carries the token of its cookie as any client carries its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_of_console(scope["path"]) and "authorization" not in Headers(scope=scope):
            token = cookie_parser(Headers(scope=scope).get("cookie", "")).get(COOKIE)
            if token:
                scope = {**scope, "headers": list(scope["headers"])}
                MutableHeaders(scope=scope)["Authorization"] = f"Bearer {token}"
        await self._app(scope, receive, send)


def is_of_console(path: str) -> bool:
    """Whether a path is one of the console's pages: the cookie counts there alone."""
    return path == PATH or path.startswith(f"{PATH}/")


def start_session(response: Response, token: str, *, secure: bool) -> None:
    """Let the browser keep the token: no script can read it, and no other site's request but a link carries it."""
    response.set_cookie(COOKIE, token, path=PATH, secure=secure, httponly=True, samesite="lax")


def end_session(response: Response, *, secure: bool) -> None:
    """Let the browser forget it."""
    response.delete_cookie(COOKIE, path=PATH, secure=secure, httponly=True, samesite="lax")


def form_token(token: str) -> str:
    """What a form of this session carries: another site can neither read nor compute it."""
    return hmac.new(token.encode(), _FORM, hashlib.sha256).hexdigest()


def form_token_is_good(sent: str, token: str) -> bool:
    """Whether a form carries what this session's forms carry."""
    return hmac.compare_digest(sent.encode(), form_token(token).encode())
