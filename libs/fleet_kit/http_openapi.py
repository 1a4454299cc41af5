"""The errors that every endpoint may answer, put into an application's OpenAPI document in one place."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

__all__ = ["PROBLEM", "PROBLEM_CONTENT", "answers_with", "declare_errors", "reads_json"]

PROBLEM: Final = "application/problem+json"
PROBLEM_CONTENT: Final[dict[str, Any]] = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "What is wrong and what would be right (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The same for each occurrence."},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "The input at fault."},
    },
}
_WITH_A_TOKEN: Final = (401, 403, 404, 409, 413, 422, 429, 503)
_WITH_A_BODY: Final = (400, 408, 415)


def answers_with(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of an endpoint with `response_class=Response` whose answer is not JSON."""
    return {200: {"description": "Successful Response", "content": {media_type: {} for media_type in media_types}}}


def reads_json(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of an endpoint that reads its JSON body itself: what the body is."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inlined(definitions[part["$ref"].rpartition("/")[2]])
            return {name: inlined(value) for name, value in part.items()}
        return [inlined(value) for value in part] if isinstance(part, list) else part

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}}


def declare_errors(app: FastAPI) -> None:
    """Let the application's document name the errors of the front and of its handlers.

    `app.state.error_content`, path → the `content` of an error there, is for those that are not problem+json.
    """
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(made(), getattr(app.state, "error_content", lambda _path: PROBLEM_CONTENT))
        document: dict[str, Any] = app.openapi_schema or {}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any], content_of: Callable[[str], dict[str, Any]]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _SCHEMA
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _declare(operation, content_of(path))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _declare(operation: dict[str, Any], content: dict[str, Any]) -> None:
    statuses = (*(_WITH_A_TOKEN if operation.get("security") else (422,)),)
    statuses += _WITH_A_BODY if "requestBody" in operation else ()
    for status in statuses:
        # What an endpoint declares itself is more precise; FastAPI's own 422 is not what we send.
        declared = operation["responses"].get(str(status))
        if declared is None or status == 422:
            operation["responses"][str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
