"""What the client reads of an answer is what the services' OpenAPI documents promise, endpoint for endpoint."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from fleet_events import v1
from fleet_kit.auth import LocalIssuer
from lorafleet import calls
from lorafleet.clients import Call
from lorafleet.home import SERVICES
from lorafleet.responses import Anything, Reply

pytestmark = pytest.mark.unit

ARGUMENTS: dict[str, Any] = {
    "request": v1.TrainingRequested(domain="tax"),
    "file": Path(__file__),
    "files": [Path(__file__)],
    "fields": {},
    "recipe": {},
    "body": {},
    "metrics": {},
    "rules": {},
    "ndjson": b"{}",
    "domains": ["tax"],
    "score": 1.0,
    "seconds": 60,
    "scopes": ["generate"],
    "k": 1,
    "rating": 5,
    "what": "pause",
    "verb": "approve",
    "move": "pause",
    "mode": "canary",
    "path": "report",
    "service": "registry",
    "history": [],
}
"""For a call's parameters, where "x" is none."""
BEYOND = {
    # Shown where a decision takes a version out of service, and with all that is known of one; a list never has them.
    "Adapter": {"withdrawal", "own_metrics"},
    # Added to the answer of an imported file alone.
    "GoldenChanged": {"opened"},
}
EVERY_CALL = [function for name in calls.__all__ if (function := getattr(calls, name)) is not calls.health]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    """Service → its OpenAPI document, as it is composed for production, connected to nothing."""
    folder, nowhere = tmp_path_factory.mktemp("service"), "127.0.0.1:9"
    LocalIssuer.create(folder)
    environment = {
        "PORT": "8000",
        "NATS_URL": f"nats://{nowhere}",
        "DATABASE_URL": f"postgres://nobody@{nowhere}/nothing",
        "S3_ENDPOINT": f"http://{nowhere}",
        "S3_ACCESS_KEY": "key",
        "S3_SECRET_KEY": "secret",
        "JWKS": str(folder / "jwks.json"),
        "BASE_MODEL": str(folder),
        "BASE_MODEL_NAME": "base",
        "EMBEDDING_MODEL": str(folder),
        "CACHE_DIR": str(folder),
    } | {f"{name.upper()}_URL": f"http://{nowhere}" for name in SERVICES}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"LORAFLEET_{name}", value)
        apps: dict[str, FastAPI] = {name: importlib.import_module(f"services.{name}.app").build() for name in SERVICES}
        return {name: app.openapi() for name, app in apps.items()}


@pytest.mark.parametrize("function", EVERY_CALL, ids=lambda function: function.__name__)
def test_every_field_that_the_client_reads_is_one_that_the_service_answers(
    function: Any, documents: Mapping[str, dict[str, Any]]
) -> None:
    given = {name: ARGUMENTS.get(name, "x") for name in inspect.signature(function).parameters}
    call: Call[Any] = function(**{name: value for name, value in given.items() if name not in ("further", "active")})
    document = documents[call.service]
    answer = _answer(document, call)
    if call.inside and answer:
        answer = _resolved(document, answer.get("properties", {}).get(call.inside) or answer["additionalProperties"])
    missing = [] if call.lines else list(_missing(document, call.answer._type, answer))
    assert missing == []


def _answer(document: Mapping[str, Any], call: Call[Any]) -> dict[str, Any]:
    """Schema of the JSON that the endpoint answers; raises LookupError where the service has no such endpoint."""
    path = re.sub(r"/v1/adapters/x/approve", "/v1/adapters/{adapter_id}/approve", call.path)
    for template, methods in document["paths"].items():
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and (operation := methods.get(call.method.lower())):
            for status, response in operation["responses"].items():
                if status.startswith("2") and (content := response.get("content", {}).get("application/json")):
                    return _resolved(document, content["schema"])
            return {}
    raise LookupError(f"{call.service} has no {call.method} {call.path}")


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object behind references, the one that is not null, and the items of a list."""
    while True:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema:
            schema = next((one for one in schema["anyOf"] if one.get("type") != "null"), {})
        elif schema.get("type") == "array":
            schema = schema.get("items", {})
        else:
            return dict(schema)


def _missing(document: Mapping[str, Any], kind: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """Fields of the client's class which the schema lacks; an answer without declared fields promises nothing."""
    model = _model(kind)
    fields = schema.get("properties")
    if model is None or model is Anything or not fields:
        return
    for name, field in model.model_fields.items():
        if name in BEYOND.get(model.__name__, ()):
            continue
        if name not in fields:
            yield f"{model.__name__}.{name}"
            continue
        yield from _missing(document, field.annotation, _resolved(document, fields[name]))


def _model(kind: Any) -> type[BaseModel] | None:
    """The client's class in an annotation: of a list its items', of an optional the class itself."""
    if isinstance(kind, type) and issubclass(kind, Reply):
        return kind
    if get_origin(kind) in (list, tuple, Union, UnionType):
        return next((found for one in get_args(kind) if (found := _model(one))), None)
    return None
