"""The HTTP side that every service shares: health, readiness, metrics, problem+json, request traces."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, TypeVar, cast

import asyncpg
import httpx
import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from fleet_kit.auth import Caller, require
from fleet_kit.errors import Problem
from fleet_kit.faults import TRANSIENT, describe, is_transient
from fleet_kit.http_front import Front
from fleet_kit.http_openapi import PROBLEM, answers_with, declare_errors
from fleet_kit.settings import HttpSettings

__all__ = ["dependency", "install"]

log = structlog.get_logger()
_USER_INFO = re.compile(r"//[^/\"@\s]*@")
"""Name and password in a URL."""


T = TypeVar("T")


def dependency(_kind: type[T]) -> Callable[[Request], Awaitable[T]]:
    """A FastAPI dependency that gives the running service, typed as `create_app` composes it for this API.

    For example `Running = Annotated[RouterService, Depends(dependency(RouterService))]`, where `RouterService` is
    `Service[RouterSettings, RouterParts]`.
    """

    # Not a plain function: FastAPI would run that in a thread, for each request.
    async def running(request: Request) -> T:
        return cast(T, request.app.state.service)

    return running


def problem_response(problem: Problem) -> JSONResponse:
    """RFC 9457 answer."""
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
    retry = problem.extensions.get("retry_after")
    if retry is not None:
        headers["Retry-After"] = str(retry)
    return JSONResponse(problem.body(), status_code=problem.status, media_type=PROBLEM, headers=headers)


def install(
    app: FastAPI,
    settings: HttpSettings,
    checks: Callable[[], dict[str, Callable[[], Awaitable[None]]]],
    details: Callable[[], dict[str, object]] = dict,
    public: Collection[str] = (),
) -> None:
    """Give an application its health endpoints, its error answers and the front before them.

    Args:
        app: the application.
        settings: limits of the front.
        checks: the dependencies of readiness: name → a call that raises with the reason while it is unavailable.
        details: what /readyz shows beside them.
        public: further paths that are answered without a token.
    """

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> JSONResponse:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            {"field": ".".join(str(part) for part in fault["loc"] if part != "body"), "message": fault["msg"]}
            for fault in error.errors()
        ]
        detail = "; ".join(f"{fault['field'] or 'body'}: {fault['message']}" for fault in faults)
        return problem_response(Problem(422, "Invalid request", detail, field=faults[0]["field"], faults=faults))

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        return problem_response(Problem(error.status_code, "Request refused", str(error.detail)))

    possibly: tuple[type[Exception], ...] = (*TRANSIENT, asyncpg.PostgresError, httpx.HTTPStatusError)
    for transient in possibly:
        app.add_exception_handler(transient, _unavailable)

    app.add_middleware(Front, settings=settings, public=public)
    declare_errors(app)
    app.include_router(_health(checks, details, metrics_public=settings.metrics_public))


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    if not is_transient(error):
        raise error
    log.warning("request_unavailable", reason=describe(error))
    detail = f"a dependency of this service is unavailable ({type(error).__name__}); see /readyz"
    return problem_response(Problem(503, "Temporarily unavailable", detail, retry_after=2))


def _reads_metrics(caller: Annotated[Caller, Depends(require())]) -> None:
    if "*" not in caller.domains or not (caller.can("metrics") or caller.can("admin")):
        detail = "metrics are of the whole fleet: this needs a token with the scope 'metrics' and every domain"
        raise Problem(403, "Scope missing", detail, scope="metrics")


def _health(
    checks: Callable[[], dict[str, Callable[[], Awaitable[None]]]],
    details: Callable[[], dict[str, object]],
    *,
    metrics_public: bool,
) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="Ready to work: JetStream, database and object store take a write, and the service's own parts work",
        responses={503: {"description": "Not ready", "content": {"application/json": {}}}},
    )
    async def readyz(request: Request) -> JSONResponse:
        async def check(call: Callable[[], Awaitable[None]]) -> str:
            try:
                async with asyncio.timeout(3):
                    await call()
            except Exception as error:
                return str(error) or type(error).__name__
            return "ok"

        named = checks()
        results = dict(zip(named, await asyncio.gather(*map(check, named.values())), strict=True))
        if getattr(request.app.state, "leaving", False):
            results["process"] = "it is being stopped"
        ready = all(result == "ok" for result in results.values())
        body = {"ready": ready, "checks": results} | ({"detail": detail} if (detail := details()) else {})
        return JSONResponse(body) if ready else JSONResponse(body, status_code=503, headers={"Retry-After": "2"})

    # They name adapters, and so the domains that have some.
    reads_metrics = [] if metrics_public else [Depends(_reads_metrics)]

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        dependencies=reads_metrics,
        response_class=Response,
        responses=answers_with("text/plain"),
    )
    async def exposition() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/admin/info", summary="What this process is", dependencies=[Depends(require("fleet:admin"))])
    async def info(request: Request) -> dict[str, object]:
        service = request.app.state.service
        secret = {"database_url", "s3_secret_key", "s3_access_key", "s3_session_token"}
        shown = service.settings.model_dump_json(exclude=secret)
        return {"service": service.name, "settings": json.loads(_USER_INFO.sub("//", shown))}

    return router
