"""What stands before an application: who calls is known, and the body is bounded, before a byte of it is read.

Pure ASGI, so that a body and an answer pass through as they come. Everything but `PUBLIC` needs a token, also what no
route answers: an endpoint that forgets to require a scope still requires a caller.
"""

import time
from collections.abc import Callable, Collection
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote_to_bytes

import structlog
from fastapi import FastAPI, Request, Response
from opentelemetry.trace import StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_events.text import refuse_unstorable
from fleet_kit import metrics
from fleet_kit.auth import CALLER, identify
from fleet_kit.errors import Problem
from fleet_kit.http_body import Body, BodyPlaces, ClientGone
from fleet_kit.http_limits import JSON_BODY, Known, RouteTable
from fleet_kit.settings import HttpSettings
from fleet_kit.tracing import SpanKind, span

__all__ = ["PUBLIC", "Front"]

log = structlog.get_logger()

_DOCS: Final = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})
PUBLIC: Final = frozenset({"/healthz", "/readyz", "/openapi.json"}) | _DOCS
"""What is answered without a token; /metrics too where the settings allow it."""
_UNTRACED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What a machine requests every few seconds: a trace of each would bury the others."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    # Answers are for the bearer of one token.
    "Cache-Control": "no-store",
}
_DOCS_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; frame-ancestors 'none'; worker-src blob:; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src https://fastapi.tiangolo.com data:; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; font-src https://fonts.gstatic.com"
)
"""FastAPI's own pages: their scripts come from where FastAPI puts them, and nothing in them is a caller's."""


class Front:
    """ASGI middleware of every service.

    Args:
        app: what is behind it.
        settings: its limits.
        public: further paths that are answered without a token.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, public: Collection[str] = ()) -> None:
        self._app = app
        self._settings = settings
        self._places = BodyPlaces(settings)
        self._public = PUBLIC | frozenset(public) | ({"/metrics"} if settings.metrics_public else set())
        self._table: RouteTable | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        route = self._route(scope)
        template = route.template if route else "unmatched"
        headers = Headers(scope=scope)
        body = Body(receive, headers, route.body if route else JSON_BODY, self._settings)
        answer = _Answer(send, body, scope["path"])
        method = scope["method"] if scope["method"] in METHODS else "other"
        try:
            if scope["path"] in _UNTRACED:
                await self._answered(scope, body, answer)
                return
            attributes = {"http.request.method": method, "http.route": template}
            with span(f"{method} {template}", headers, SpanKind.SERVER, attributes) as current:
                await self._answered(scope, body, answer)
                if answer.started:
                    current.set_attribute("http.response.status_code", answer.status)
                if answer.outcome == "5xx":
                    current.set_status(StatusCode.ERROR)
        finally:
            elapsed = time.perf_counter() - begun
            metrics.HTTP_SECONDS.labels(method, template, answer.outcome).observe(elapsed)

    def _route(self, scope: Scope) -> Known | None:
        if self._table is None:  # the routes are complete by the first request
            self._table = RouteTable(cast(FastAPI, scope["app"]).routes, self._settings)
        return self._table.find(scope["method"], scope["path"])

    async def _answered(self, scope: Scope, body: Body, answer: "_Answer") -> None:
        try:
            await self._pass(scope, body, answer)
        except ClientGone:
            return
        except Exception as error:
            if answer.started:
                # Half an answer cannot be corrected: the server closes the connection, so that it is seen as cut.
                raise
            response = await _error_response(scope, error)
            await response(scope, body.receive, answer)

    async def _pass(self, scope: Scope, body: Body, answer: "_Answer") -> None:
        _check_target(scope)
        if scope["path"] in self._public:
            body.check()
            await self._app(scope, body.receive, answer)
            return
        caller = scope[CALLER] = await identify(Headers(scope=scope), scope["app"].state.verifier)
        body.check()
        if not body.present:
            await self._app(scope, body.receive, answer)
            return
        if body.streamed:
            with self._places.taken(caller.subject):
                await self._app(scope, body.receive, answer)
            return
        with self._places.taken(caller.subject):
            content = await body.read_json_body()
        await self._app(scope, body.replaying(content), answer)


class _Answer:
    """The `send` of a request: adds what every answer carries, and remembers what it was."""

    def __init__(self, send: Send, body: Body, path: str) -> None:
        self._send = send
        self._body = body
        self._path = path
        self.started = False
        self.status = 0
        self.outcome = "gone"
        """Class of the status, 2xx to 5xx."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            self.outcome = f"{self.status // 100}xx"
            headers = MutableHeaders(scope=message)
            if self._path in _DOCS:
                headers.setdefault("Content-Security-Policy", _DOCS_POLICY)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if not self._body.complete:
                # What the client still sends is not read.
                headers["Connection"] = "close"
        await self._send(message)


def _check_target(scope: Scope) -> None:
    """Raise a 422 `Problem` for a path or a query that is not text which the fleet can store."""
    _checked(unquote_to_bytes(scope.get("raw_path", b"")), "path")
    try:
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, encoding="latin-1")
    except ValueError as error:
        raise Problem(422, "Invalid request", f"query: {error}", field="query") from None
    for name, value in pairs:
        _checked(name.encode("latin-1"), "query")
        _checked(value.encode("latin-1"), name)


def _checked(value: bytes, field: str) -> None:
    try:
        refuse_unstorable(value.decode())
    except UnicodeDecodeError:
        raise Problem(422, "Invalid request", f"{field}: not UTF-8", field=field) from None
    except ValueError as error:
        raise Problem(422, "Invalid request", f"{field}: {error}", field=field) from None


async def _error_response(scope: Scope, error: Exception) -> Response:
    """As the application's own handlers answer it; a 500 for what they do not know."""
    app: FastAPI = scope["app"]
    request = Request(scope)
    for kind in type(error).__mro__:
        handler = cast(Callable[[Request, Exception], Any] | None, app.exception_handlers.get(kind))
        if handler is not None:
            return cast(Response, await handler(request, error))
    log.error("request_failed", method=scope["method"], exc_info=error)
    fault = Problem(500, "Internal error", "this service has a defect; its log has the details")
    return cast(Response, await cast(Any, app.exception_handlers[Problem])(request, fault))
