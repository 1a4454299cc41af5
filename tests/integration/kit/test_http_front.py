"""What stands before every service: who calls is known, and the body is bounded, before a byte of it is read."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fleet_events.strict_json import MAX_CONTAINERS
from fleet_kit.auth import LocalIssuer

pytestmark = pytest.mark.integration

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
    return _serving(issuer, folder, {f"LORAFLEET_HTTP_{name.upper()}": value for name, value in limits.items()})


@contextmanager
def _serving(issuer: tuple[LocalIssuer, Path], folder: Path, limits: dict[str, str]) -> Iterator[Doors]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log_file = folder / "doors.log"
    environment = limits | {
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
        while not _alive(port):
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.05)
        token = issuer[0].mint("anna", ["generate"])
        yield Doors(port, token, httpx.AsyncClient(), log_file, process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
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


async def test_a_body_without_a_token_is_refused_before_a_byte_of_it_is_read(doors: Doors) -> None:
    for head in ("POST /v1/notes", "PUT /v1/files", "POST /nowhere"):
        sender = await doors.send(f"{head} HTTP/1.1\r\nContent-Length: 300000000", token=False)
        status, headers, body = await sender.answer(within=0.9)  # nothing of the body was sent
        assert (status, headers["connection"], json.loads(body)["status"]) == (401, "close", 401)
        assert headers["content-type"] == "application/problem+json"


async def test_a_body_over_the_routes_limit_is_refused_by_its_declared_length(doors: Doors) -> None:
    for head, largest in (("POST /v1/notes", MIB), ("PUT /v1/files", 8 * MIB), ("POST /v1/raw", 8 * MIB)):
        sender = await doors.send(f"{head} HTTP/1.1\r\nContent-Length: {largest + 1}")
        status, headers, body = await sender.answer(within=0.9)
        assert (status, headers["connection"], json.loads(body)["limit"]) == (413, "close", largest)


async def test_a_chunked_body_is_counted_as_it_comes_and_costs_no_memory(doors: Doors) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield bytes(MIB)

    before = await doors.memory()
    for method, path in (("POST", "/v1/notes"), ("PUT", "/v1/files"), ("POST", "/v1/raw")):
        try:
            answer = await doors.client.request(
                method, path, content=endless(), headers={"Content-Type": "application/json"}
            )
        except httpx.TransportError:
            continue  # the server answered and closed while we were still sending
        assert answer.status_code == 413
    assert await doors.memory() - before < 40_000  # kB, where 300 MB were on offer thrice


async def test_a_client_that_is_still_sending_gets_the_refusal_and_no_reset(doors: Doors) -> None:
    for token, status in ((True, 413), (False, 401)):
        for _ in range(40):
            sender = await doors.send(f"POST /v1/notes HTTP/1.1\r\nContent-Length: {8 * MIB}", token=token)
            for _ in range(4):
                sender.writer.write(bytes(MIB))
                await sender.writer.drain()
            assert (await sender.answer(within=10))[0] == status


async def test_a_client_that_sends_for_ever_is_listened_to_for_a_bounded_time(doors: Doors) -> None:
    sender = await doors.send("POST /v1/notes HTTP/1.1\r\nContent-Length: 100000000000")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(20):
            while True:
                sender.writer.write(bytes(MIB))
                await sender.writer.drain()


async def test_a_body_that_stops_half_way_is_answered_and_its_connection_closed(doors: Doors) -> None:
    for head in ("POST /v1/notes", "PUT /v1/files"):
        sender = await doors.send(f"{head} HTTP/1.1\r\nContent-Length: 1000", b'{"text": ')
        status, headers, body = await sender.answer(within=4)
        assert (status, headers["connection"], json.loads(body)["field"]) == (408, "close", "body")


async def test_a_body_that_trickles_is_no_way_around_the_time_limit(doors: Doors) -> None:
    sender = await doors.send("PUT /v1/files HTTP/1.1\r\nContent-Length: 1000")

    async def trickle() -> None:
        while not sender.writer.is_closing():
            sender.writer.write(b"x")
            await asyncio.sleep(0.1)

    trickling = asyncio.create_task(trickle())
    status, _, _ = await sender.answer(within=4)
    trickling.cancel()
    assert status == 408


async def test_a_head_that_does_not_come_in_time_closes_the_connection(doors: Doors) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
    begun = time.monotonic()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    status, headers, _ = await Sender(reader, writer).answer(within=4)
    assert (status, headers["content-type"]) == (408, "application/problem+json")
    assert 0.8 < time.monotonic() - begun < 3
    silent, other = await asyncio.open_connection("127.0.0.1", doors.port)
    async with asyncio.timeout(4):
        assert await silent.read() == b""
    other.close()


async def test_a_second_head_on_a_kept_connection_has_a_time_limit_too(doors: Doors) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(4):
        first = await reader.readuntil(b"}")
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        second = await reader.read()
    writer.close()
    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 408")


async def test_one_callers_unfinished_bodies_leave_places_for_others(
    doors: Doors, issuer: tuple[LocalIssuer, Path]
) -> None:
    held = [await doors.send("PUT /v1/files HTTP/1.1\r\nContent-Length: 1000", b"x") for _ in range(4)]
    async with asyncio.timeout(4):
        while (over := await doors.client.post("/v1/notes", json={"text": "mine"})).status_code == 200:
            await asyncio.sleep(0.01)  # not all of the four have been read yet
    assert (over.status_code, over.headers["retry-after"]) == (429, "1")
    other = {"Authorization": f"Bearer {issuer[0].mint('ben', ['generate'])}"}
    assert (await doors.client.post("/v1/notes", json={"text": "his"}, headers=other)).status_code == 200
    for sender in held:
        assert (await sender.answer())[0] == 408
    assert (await doors.client.post("/v1/notes", json={"text": "mine"})).status_code == 200


@pytest.mark.parametrize("clients", [200, pytest.param(1500, marks=pytest.mark.heavy)])
async def test_slow_clients_leave_healthz_quick(issuer: tuple[LocalIssuer, Path], tmp_path: Path, clients: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    heads = (
        ("GET /healthz HTTP/1.1\r\nX-Slow: ", b"", True),
        ("POST /v1/notes HTTP/1.1\r\nContent-Length: 1000", b"{", True),
        ("POST /v1/notes HTTP/1.1\r\nContent-Length: 300000000", b"x" * 60_000, False),
    )
    with serving(issuer, tmp_path) as doors:

        async def slow(number: int) -> Sender | None:
            head, body, token = heads[number % 3]
            try:
                return await doors.send(head, body, token=token)
            except OSError:
                return None  # refused and closed while we were sending

        held = await asyncio.gather(*map(slow, range(clients)))
        await asyncio.sleep(1)  # they all have come; what follows is how it is with them there
        # On a thread of its own: what is measured is the service, not this test's event loop.
        seconds = await asyncio.to_thread(_healthz_seconds, doors.port, 4.0)
        for sender in held:
            if sender is not None:
                sender.writer.transport.abort()
    median, slowest = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    counts = f"{clients} slow clients, {len(seconds)} asks, {sum(one > 0.1 for one in seconds)} over 100 ms"
    print(f"{counts}: median {median * 1000:.1f} ms, p95 {slowest * 1000:.1f} ms, worst {max(seconds) * 1000:.0f} ms")
    assert slowest < 0.1


def _healthz_seconds(port: int, long: float) -> list[float]:
    seconds, ends = [], time.monotonic() + long
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        while time.monotonic() < ends:
            begun = time.monotonic()
            assert client.get("/healthz").status_code == 200
            seconds.append(time.monotonic() - begun)
            time.sleep(0.01)
    return seconds


async def test_beyond_the_connections_allowed_the_one_goes_that_waited_longest(
    issuer: tuple[LocalIssuer, Path], tmp_path: Path
) -> None:
    with serving(issuer, tmp_path, connections="16") as doors:
        held = [await asyncio.open_connection("127.0.0.1", doors.port) for _ in range(40)]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{doors.port}") as client:
            assert (await client.get("/healthz")).status_code == 200
        # The first are gone, the last are still served.
        with suppress(ConnectionError):
            assert await held[0][0].read() == b""
        reader, writer = held[-1]
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        for _, one in held:
            one.transport.abort()


async def test_json_of_nested_lists_does_not_hold_up_others(doors: Doors) -> None:
    listed = b"[" + b"[]," * (MAX_CONTAINERS - 10) + b"[]]"
    body = b'{"text": ' + listed + b', "more": "' + b"[" * 2_000_000 + b'"}'

    async def probe() -> float:
        worst = 0.0
        async with httpx.AsyncClient(base_url=doors.client.base_url) as client:
            while not sent.done():
                begun = time.monotonic()
                await client.get("/healthz")
                worst = max(worst, time.monotonic() - begun)
                await asyncio.sleep(0.01)
        return worst

    sent = asyncio.create_task(doors.client.post("/v1/raw", content=body, headers={"Content-Type": "application/json"}))
    worst = await probe()
    assert (await sent).status_code == 200
    assert worst < 2.0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"text": "a\\u0000b"}', "text"),
        (b'{"text": "a\\ud800b"}', "body"),
        (b'{"text": "a", "number": NaN}', "body"),
        (b'{"text": "a", "number": Infinity}', "body"),
        (b'{"text": "a", "number": 1e999}', "number"),
        (b'{"text": "a", "number": 1' + b"0" * 4000 + b"}", "number"),
        (b'{"text": ' + b"[" * 100 + b"]" * 100 + b"}", None),
        (b'{"text": ' + b"[" * 100_000 + b"}", "body"),
        (b'{"te\\u0000xt": 1}', "body"),
        (b"\xff\xfe", "body"),
        (b"{", "body"),
    ],
)
async def test_json_that_the_fleet_cannot_hold_is_a_422_that_names_the_field(
    doors: Doors, body: bytes, field: str | None
) -> None:
    for path in ("/v1/notes", "/v1/raw"):
        answer = await doors.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        named = answer.json()["field"]
        assert named == field or (field is None and named.startswith("text.0"))


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/v1/items/a%00b", "path"),
        ("/v1/items/a%ed%a0%80b", "path"),
        ("/v1/items/%ff", "path"),
        ("/nowhere%00", "path"),
        ("/v1/items/a?limit=%00", "limit"),
        ("/v1/items/a?limit=%ff", "limit"),
        ("/v1/items/a?%00=1", "query"),
        (f"/v1/items/a?limit=1{'0' * 30}", "query.limit"),
        (f"/v1/items/a?limit=1{'0' * 5000}", "query.limit"),
    ],
)
async def test_paths_and_queries_that_are_no_storable_text_are_refused_by_name(
    doors: Doors, target: str, field: str
) -> None:
    answer = await doors.client.get(httpx.URL(str(doors.client.base_url).rstrip("/") + target))
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_media_types_and_codings_that_are_not_read_are_refused(doors: Doors) -> None:
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/json", "Content-Encoding": "gzip"}):
        answer = await doors.client.post("/v1/notes", content=b"{}", headers=headers)
        assert (answer.status_code, answer.headers["connection"]) == (415, "close")


async def test_every_answer_forbids_sniffing_framing_and_keeping(doors: Doors) -> None:
    nobody = {"Authorization": ""}
    for answer in (
        await doors.client.get("/healthz", headers=nobody),
        await doors.client.get("/nowhere"),
        await doors.client.get("/nowhere", headers=nobody),
        await doors.client.get("/v1/failing"),
        await doors.client.post("/v1/notes", json={}),
        await doors.client.get("/openapi.json", headers=nobody),
        await doors.client.get("/docs", headers=nobody),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff", answer.request.url
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


async def test_a_defect_is_a_500_that_tells_nothing_of_the_inside(doors: Doors) -> None:
    answer = await doors.client.get("/v1/failing", params={"logged": "planted-secret"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "planted-secret" not in answer.text
    assert "RuntimeError" not in answer.text


async def test_no_request_can_add_a_series_to_the_metrics(doors: Doors, issuer: tuple[LocalIssuer, Path]) -> None:
    reads = {"Authorization": f"Bearer {issuer[0].mint('prometheus', ['metrics'])}"}

    async def ask(number: int) -> None:
        for method in (f"ODD{number}", "PROPFIND", "OPTIONS", "GET", "POST"):
            for path in (f"/odd{number}", f"/v1/items/odd{number}", f"/v1/items/odd{number}/x", f"/docs/odd{number}"):
                for headers in ({}, {"Authorization": ""}):
                    await doors.client.request(method, path, headers=headers, params={"odd": number})

    async def series() -> set[str]:
        text = (await doors.client.get("/metrics", headers=reads)).text
        return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    await series()  # the answer to this one is a series of its own
    await ask(0)
    before = await series()
    for number in range(1, 20):
        await ask(number)
    assert await series() == before
    assert not any("odd" in one for one in before)


async def test_metrics_need_a_token_of_the_whole_fleet(doors: Doors, issuer: tuple[LocalIssuer, Path]) -> None:
    def token(scope: str, *domains: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {issuer[0].mint('prometheus', [scope], domains)}"}

    for headers, status in (
        ({"Authorization": ""}, 401),
        (token("generate", "*"), 403),
        (token("metrics", "shop"), 403),
        (token("admin", "shop"), 403),
        (token("metrics", "*"), 200),
        (token("admin", "*"), 200),
    ):
        assert (await doors.client.get("/metrics", headers=headers)).status_code == status


async def test_every_line_of_the_log_is_one_json_object(doors: Doors) -> None:
    forged = 'x\n{"event": "forged", "level": "info"}\r\nforged\x1b[31m'
    await doors.client.get("/v1/failing", params={"logged": forged})
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
    writer.write(b"no http at all\r\n\r\n")
    status, headers, _ = await Sender(reader, writer).answer()
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    events = [json.loads(line) for line in doors.lines()]
    assert all({"event", "level", "timestamp", "service"} <= event.keys() for event in events)
    said = [event["event"] for event in events]
    assert "Started server process" in " ".join(said)  # uvicorn's own
    assert "Invalid HTTP request received." in said
    assert any("a warning" in one for one in said)  # from the warnings module
    assert any("RuntimeError" in event.get("exception", "") for event in events)
    assert "forged" not in said
