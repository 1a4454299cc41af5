"""A service that answers over real HTTP on loopback with what a test says, and the command line in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet_cli.app import root
from lorafleet.home import SERVICES

Lorafleet = Callable[..., Result]


@dataclass
class ReceivedRequest:
    """A request that the service got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


@dataclass
class Scripted:
    """Answers by `METHOD /path` (the query string is left out); everything else is a 404 problem."""

    url: str = ""
    answers: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    requests: list[ReceivedRequest] = field(default_factory=list)

    def answer(self, route: str, body: object, status: int = 200, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[route] = (status, kind, content)


@pytest.fixture
def service() -> Iterator[Scripted]:
    """One scripted server that stands for all services."""
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            scripted.requests.append(
                ReceivedRequest(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            )
            unknown = {"title": "Unknown", "detail": f"no {self.path}", "status": 404}
            route = f"{self.command} {self.path.partition('?')[0]}"
            missing = (404, "application/problem+json", json.dumps(unknown).encode())
            status, kind, content = scripted.answers.get(route, missing)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = respond

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    scripted.url = f"http://127.0.0.1:{server.server_port}"
    yield scripted
    server.shutdown()
    server.server_close()


@pytest.fixture
def lorafleet(tmp_path: Path) -> Lorafleet:
    """`lorafleet("adapters", "list")`: the command with an empty home, no services and no token known."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> Result:
        clean = {
            f"LORAFLEET_{name}": None
            for name in ("TOKEN", "TOKEN_FILE", "NATS_URL", *(f"{one.upper()}_URL" for one in SERVICES))
        }
        env = {**clean, "LORAFLEET_HOME": str(tmp_path / "home"), **environment}
        return CliRunner(env=env).invoke(root.typer, list(arguments), input=stdin, prog_name="lorafleet")

    return run


@pytest.fixture
def against(lorafleet: Lorafleet, service: Scripted) -> Lorafleet:
    """`against("adapters", "list")`: the command, with every service at the scripted one."""
    urls = {f"LORAFLEET_{name.upper()}_URL": service.url for name in SERVICES}

    def run(*arguments: str, **options: str) -> Result:
        return lorafleet(*arguments, LORAFLEET_TOKEN="a-token", **urls, **options)

    return run
