"""Errors of /v1/* in the form that OpenAI clients read; the rest keeps the kit's problem+json."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fleet_kit.errors import Problem
from fleet_kit.http import problem_response
from fleet_kit.http_openapi import PROBLEM_CONTENT
from services.inference.errors import ApiError

_OPENAI = "/v1/"
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_SERVED = (
    "there are /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/files, /v1/batches, "
    "/v1/models and /v1/feedback."
)
_INSTEAD = {
    "/v1/responses": "there are POST /v1/responses, and GET and DELETE of /v1/responses/ID.",
    "/v1/conversations": "continue a response with previous_response_id of POST /v1/responses.",
    "/v1/assistants": "use /v1/chat/completions.",
    "/v1/threads": "send all turns to /v1/chat/completions in each request.",
    "/v1/batches": "there are GET and POST /v1/batches, GET /v1/batches/ID and POST /v1/batches/ID/cancel.",
    "/v1/fine_tuning": "training is the trainer's: POST /jobs there.",
    "/v1/files": "there are GET and POST /v1/files, GET and DELETE /v1/files/ID and GET /v1/files/ID/content.",
    "/v1/uploads": "files come whole: use POST /v1/files.",
}
CODES = {401: "invalid_api_key", 403: "insufficient_permissions"}


def install(app: FastAPI) -> None:
    """Replaces the kit's handlers by ones that look at the path."""
    app.state.error_content = _content

    @app.exception_handler(ApiError)
    async def _api_error(request: Request, error: ApiError) -> JSONResponse:
        if _is_openai(request):
            return as_openai(error)
        waits = {} if error.retry_after is None else {"retry_after": max(1, round(error.retry_after))}
        title = error.code.replace("_", " ").capitalize()
        return problem_response(Problem(error.status, title, error.message, field=error.param, **waits))

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> JSONResponse:
        return _of_problem(problem) if _is_openai(request) else problem_response(problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            (".".join(str(part) for part in fault["loc"] if part != "body") or "body", str(fault["msg"]))
            for fault in error.errors()
        ]
        detail = "; ".join(f"{field}: {message}" for field, message in faults)
        problem = Problem(422, "Invalid request", detail, field=faults[0][0])
        return _of_problem(problem) if _is_openai(request) else problem_response(problem)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        problem = Problem(error.status_code, "Request refused", str(error.detail))
        if not _is_openai(request):
            return problem_response(problem)
        if error.status_code == 404:
            message = f"{request.method} {request.url.path} is not served here; {_instead(request.url.path)}"
            return _response(404, ApiError(message, code="route_not_served").body(), None)
        return _of_problem(problem)


def as_openai(error: ApiError | Problem) -> JSONResponse:
    """The response of a route of /v1."""
    if isinstance(error, Problem):
        return _of_problem(error)
    return _response(error.status, error.body(), error.retry_after, error.headers)


def _instead(path: str) -> str:
    """What does what an unknown route of OpenAI's API is for, as far as anything here does."""
    return next((instead for begin, instead in _INSTEAD.items() if path.startswith(begin)), _SERVED)


def _is_openai(request: Request) -> bool:
    return request.url.path.startswith(_OPENAI)


def _content(path: str) -> dict[str, object]:
    """The errors in the OpenAPI document."""
    text = {"type": "string"}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": text, "type": text, "param": {"type": ["string", "null"]}, "code": text},
    }
    schema = {"type": "object", "required": ["error"], "properties": {"error": error}}
    return {"application/json": {"schema": schema}} if path.startswith(_OPENAI) else PROBLEM_CONTENT


def _of_problem(problem: Problem) -> JSONResponse:
    type_ = TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    error = {
        "message": problem.detail,
        "type": type_,
        "param": problem.field,
        "code": CODES.get(problem.status, problem.title.lower().replace(" ", "_")),
    }
    retry_after = problem.extensions.get("retry_after")
    return _response(problem.status, {"error": error}, float(str(retry_after)) if retry_after else None)


def _response(
    status: int, body: dict[str, object], retry_after: float | None, further: Mapping[str, str] | None = None
) -> JSONResponse:
    headers = dict(further or {}) | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, round(retry_after)))
    return JSONResponse(body, status_code=status, headers=headers)
