"""A service behind the HTTP server of the kit, and raw connections to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fleet_kit.auth import LocalIssuer

MIB = 1 << 20


@dataclass
class Doors:
    """The service under test, and a client with a token."""

    port: int
    token: str
    client: httpx.AsyncClient
    log_file: Path
    pid: int

    def lines(self) -> list[str]:
        return self.log_file.read_text().splitlines()

    async def memory(self) -> int:
        return int((await self.client.get("/memory")).text)

    async def send(self, head: str, body: bytes = b"", *, token: bool = True) -> Sender:
        """Open a connection and send a request's head, and as much of a body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        authorization = f"Authorization: Bearer {self.token}\r\n" if token else ""
        writer.write(f"{head}\r\nHost: x\r\n{authorization}\r\n".encode() + body)
        await writer.drain()
        return Sender(reader, writer)


@dataclass
class Sender:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, within: float = 5.0) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; the connection must be closed by the server behind it."""
        async with asyncio.timeout(within):
            everything = await self.reader.read()
        self.writer.close()
        head, _, body = everything.partition(b"\r\n\r\n")
        status, *headers = head.decode().split("\r\n")
        named = {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}
        return int(status.split()[1]), named, body


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalIssuer, Path]:
    folder = tmp_path_factory.mktemp("issuer")
    return LocalIssuer.create(folder), folder / "jwks.json"


def serving(issuer: tuple[LocalIssuer, Path], folder: Path, **limits: str) -> AbstractContextManager[Doors]:
    """The service as a process of its own; `limits` are settings of its HTTP side."""
    return serving_with(issuer, folder, {f"LORAFLEET_HTTP_{name.upper()}": value for name, value in limits.items()})


@contextmanager
def serving_with(
    issuer: tuple[LocalIssuer, Path], folder: Path, settings: dict[str, str], trust: ssl.SSLContext | None = None
) -> Iterator[Doors]:
    """The service with these variables; `trust` verifies it where it serves TLS."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log_file = folder / "doors.log"
    environment = settings | {
        "PATH": "/usr/bin",
        "PYTHONUNBUFFERED": "1",
        "LORAFLEET_PORT": str(port),
        "LORAFLEET_JWKS": str(issuer[1]),
        "LORAFLEET_LOG_LEVEL": "DEBUG",
    }
    command = (sys.executable, "-m", "tests.integration.kit.http_service")
    with log_file.open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while not _alive(port, trust):
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.05)
        token = issuer[0].mint("anna", ["generate"])
        yield Doors(port, token, httpx.AsyncClient(), log_file, process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _alive(port: int, trust: ssl.SSLContext | None) -> bool:
    url = f"{'https' if trust else 'http'}://127.0.0.1:{port}/healthz"
    try:
        return httpx.get(url, verify=trust or True).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def running(issuer: tuple[LocalIssuer, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    limits = {"head_seconds": "1.0", "body_seconds": "1.0", "body_pace": "1000000", "write_seconds": "1.0"}
    with serving(issuer, tmp_path_factory.mktemp("doors"), **limits, bodies="6", bodies_a_caller="4") as doors:
        yield doors


@pytest.fixture
async def doors(running: Doors) -> AsyncIterator[Doors]:
    headers = {"Authorization": f"Bearer {running.token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", headers=headers, timeout=20) as client:
        running.client = client
        yield running
