"""Bodies and connections that cost a service time or memory."""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from fleet_kit.auth import LocalIssuer
from tests.integration.kit.http.conftest import MIB, Doors, Sender, serving

pytestmark = pytest.mark.integration


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
