"""A service that is told to stop: what it still answers, and how its clients learn to go elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fleet_kit.auth import LocalIssuer
from tests.integration.kit.http.conftest import Doors, serving

pytestmark = pytest.mark.integration


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refused(doors: Doors) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{doors.port}/healthz")
    except httpx.TransportError:
        return True
    return False


def test_a_service_told_to_stop_answers_on_but_is_not_ready_and_keeps_no_connection(
    issuer: tuple[LocalIssuer, Path], tmp_path: Path
) -> None:
    with serving(issuer, tmp_path, leave_seconds="1.5") as doors:
        headers = {"Authorization": f"Bearer {doors.token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{doors.port}", headers=headers) as client:
            before = client.get("/v1/items/one")
            assert "connection" not in before.headers
            os.kill(doors.pid, signal.SIGTERM)
            # The first on the connection that is open, the second on a new one.
            for name in ("two", "three"):
                answer = client.get(f"/v1/items/{name}")
                assert (answer.status_code, answer.json(), answer.headers["connection"]) == (200, name, "close")
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]) == (503, {"process": "it is being stopped"})
        until(lambda: refused(doors))


async def test_a_request_that_runs_when_the_port_is_closed_is_completed(
    issuer: tuple[LocalIssuer, Path], tmp_path: Path
) -> None:
    with serving(issuer, tmp_path, finish_seconds="10") as doors:
        sender = await doors.send(
            "PUT /v1/files HTTP/1.1\r\nContent-Type: application/octet-stream\r\nContent-Length: 8", b"four"
        )
        os.kill(doors.pid, signal.SIGTERM)
        until(lambda: refused(doors))
        sender.writer.write(b"more")
        status, _, body = await sender.answer()
        assert (status, body) == (200, b"8")
