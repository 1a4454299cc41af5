"""What every service promises over HTTP: a valid OpenAPI document, a token on every door, the same health endpoints."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleet_events.topology import SERVICES
from fleet_kit.auth import LocalIssuer

OPEN_DOORS = {"/healthz", "/readyz"}
pytestmark = pytest.mark.unit


@pytest.fixture(params=SERVICES)
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """A service as it is composed for production, connected to nothing."""
    LocalIssuer.create(tmp_path)
    nowhere = "127.0.0.1:9"
    environment = {
        "PORT": "8000",
        "NATS_URL": f"nats://{nowhere}",
        "DATABASE_URL": f"postgres://nobody@{nowhere}/nothing",
        "S3_ENDPOINT": f"http://{nowhere}",
        "S3_ACCESS_KEY": "key",
        "S3_SECRET_KEY": "secret",
        "JWKS": str(tmp_path / "jwks.json"),
        "BASE_MODEL": str(tmp_path),
        "BASE_MODEL_NAME": "base",
        "EMBEDDING_MODEL": str(tmp_path),
        "CACHE_DIR": str(tmp_path),
    } | {f"{name.upper()}_URL": f"http://{nowhere}" for name in SERVICES}
    for name, value in environment.items():
        monkeypatch.setenv(f"LORAFLEET_{name}", value)
    built: FastAPI = importlib.import_module(f"services.{request.param}.app").build()
    return built


def operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_endpoint_but_health_asks_for_a_token(app: FastAPI) -> None:
    for method, path, operation in operations(app):
        assert bool(operation.get("security")) == (path not in OPEN_DOORS), f"{method} {path}"


def test_every_service_answers_the_same_operational_endpoints(app: FastAPI) -> None:
    paths = set(app.openapi()["paths"])
    assert OPEN_DOORS | {"/metrics", "/admin/info"} <= paths
    assert all(path.startswith(("/v1/", "/admin/")) for path in paths - OPEN_DOORS - {"/metrics"})


def test_the_openapi_document_is_json_and_names_every_operation_once(app: FastAPI) -> None:
    document = json.loads(json.dumps(app.openapi()))
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for _, _, operation in operations(app)]
    assert len(names) == len(set(names))


async def test_a_request_without_a_token_is_refused_at_every_door(app: FastAPI) -> None:
    from fleet_kit.auth import Verifier

    app.state.verifier = Verifier("/nowhere", "lorafleet")
    app.state.service = None  # nothing may be touched before the caller is known
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for method, path, _ in operations(app):
            if path in OPEN_DOORS:
                continue
            url = path.replace("{", "").replace("}", "")
            answer = await client.request(method, url, json={})
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code} {answer.text}"
            assert answer.headers["www-authenticate"] == "Bearer" or path.startswith("/v1/"), path


async def test_liveness_needs_nothing_that_the_service_depends_on(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


HOSTILE = {
    "NUL": b'{"x": "a\\u0000b"}',
    "half a surrogate pair": b'{"x": "\\ud800"}',
    "NaN": b'{"x": NaN}',
    "infinity": b'{"x": 1e999}',
    "4,000 digits": b'{"x": ' + b"9" * 4000 + b"}",
    "nested": b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}",
    "deeply nested": b"[" * 100_000,
}


async def test_text_and_numbers_that_nothing_can_store_are_refused_at_every_door(app: FastAPI, tmp_path: Path) -> None:
    from fleet_kit.auth import SCOPES, Verifier

    app.state.verifier = Verifier(str(tmp_path / "jwks.json"), "lorafleet")
    app.state.service = None  # nothing behind the door is asked
    token = LocalIssuer.open(tmp_path).mint("anna", SCOPES)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    sent = 0
    async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
        for method, path, operation in operations(app):
            name = re.sub(r"\{[^}]*\}", "x", path)
            bad = [f"{re.sub(r'{[^}]*}', text, path)}" for text in ("a%00", "%ed%a0%80", "%ff") if "{" in path]
            bad += [f"{name}?limit=%00", f"{name}?%ff=1"]
            for url in bad:
                answer = await client.request(method, url)
                assert answer.status_code == 422, f"{method} {url}: {answer.status_code} {answer.text}"
                sent += 1
            if "application/json" not in operation.get("requestBody", {}).get("content", {}):
                continue
            for what, body in HOSTILE.items():
                answer = await client.request(method, name, content=body)
                assert answer.status_code == 422, f"{method} {path}, {what}: {answer.status_code} {answer.text}"
                sent += 1
    assert sent >= 2 * len(list(operations(app)))


def test_every_endpoint_declares_the_errors_that_stand_before_it(app: FastAPI) -> None:
    for method, path, operation in operations(app):
        wanted = {"401", "403", "404", "409", "413", "422", "429", "503"} if operation.get("security") else {"422"}
        wanted |= {"400", "408", "415"} if "requestBody" in operation else set()
        assert wanted <= set(operation["responses"]), f"{method} {path}"
