"""Planted secrets are nowhere to be found: not in logs, metrics, answers or process lists."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from pydantic import ValidationError

from fleet_cli.stack import Fleet
from fleet_kit.settings import ServiceSettings
from tests.conftest import RunningService, RunService

pytestmark = pytest.mark.integration


def command_lines(service: RunningService) -> Iterator[str]:
    """Of the service's process and of all that it started."""
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if f"services.{service.name}" in line:
            yield line
            yield from (" ".join(child.cmdline()) for child in process.children(recursive=True))


def planted(service: RunningService, servers: Fleet) -> dict[str, str]:
    """What the service was started with and nobody may read."""
    found = {
        "S3 secret key": service.env["LORAFLEET_S3_SECRET_KEY"],
        "S3 access key": service.env["LORAFLEET_S3_ACCESS_KEY"],
        "NATS seed": Path(service.env["LORAFLEET_NATS_SEED_FILE"]).read_text().strip(),
        "own token": Path(service.env["LORAFLEET_TOKEN_FILE"]).read_text().strip(),
        "admin's token": servers.info.token("admin"),
    }
    if url := service.env.get("LORAFLEET_DATABASE_URL"):
        found["database password"] = str(urlsplit(url).password)
    return found


@pytest.mark.parametrize(
    "name",
    ["registry", "trainer"]
    + [pytest.param(name, marks=pytest.mark.heavy) for name in ("evaluator", "router", "inference")],
)
async def test_no_secret_is_logged_answered_measured_or_on_a_command_line(
    run_service: RunService, servers: Fleet, base_model: Path, name: str
) -> None:
    hidden = secrets.token_urlsafe(24)
    changes = {
        "LORAFLEET_LOG_LEVEL": "DEBUG",
        "LORAFLEET_BASE_MODEL": str(base_model),
        "LORAFLEET_SQL_SOURCES": f'{{"accounts": "postgres://reader:{hidden}@127.0.0.1:9/accounts"}}',
        "LORAFLEET_DOCUMENT_STORES": f'{{"papers": {{"url": "http://reader:{hidden}@127.0.0.1:9/", "token": "{hidden}"}}}}',
        "LORAFLEET_VLLM_API_KEY": hidden,
    }
    async with run_service(name, **changes) as service:
        sought = planted(service, servers) | {"source's password": hidden}
        answers = [
            await service.client.get(path)
            for path in ("/admin/info", "/metrics", "/openapi.json", "/readyz", "/v1/adapters", "/v1/jobs", "/nowhere")
        ]
        recipe = {
            "domain": "shop",
            "name": "x",
            "sources": [{"type": "sql", "source": "accounts", "query": "select 1"}],
        }
        answers += [
            await service.client.post(path, json=body)
            for path in ("/v1/jobs", "/v1/datasets", "/v1/adapters", "/v1/golden", "/v1/route", "/v1/chat/completions")
            for body in ({}, recipe, [sought["S3 secret key"]])
        ]
        token = sought["admin's token"]
        for bad in (token + "x", token[:-4], "x" + token, f"{token} {token}"):
            answers.append(await service.client.get("/v1/adapters", headers={"Authorization": f"Bearer {bad}"}))
        places = {f"{one.request.method} {one.request.url.path}": one.text for one in answers}
        places["log"] = service.log
        places |= {f"command line {number}": line for number, line in enumerate(command_lines(service))}
    places["log at the end"] = service.log
    assert any(place.startswith("command line") for place in places)
    assert "info" in places["log"]
    found = [(what, place) for what, secret in sought.items() for place, text in places.items() if secret in text]
    # Whoever sends a secret as data may get it back in the error; nobody else does.
    assert [one for one in found if not one[1].startswith("POST")] == []


def test_a_wrong_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = secrets.token_urlsafe(24)
    for name in ("NATS_URL", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "JWKS", "PORT"):
        monkeypatch.setenv(f"LORAFLEET_{name}", hidden)
    with pytest.raises(ValidationError, match="port") as refused:
        ServiceSettings()  # type: ignore[call-arg]
    assert hidden not in str(refused.value)
