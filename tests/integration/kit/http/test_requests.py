"""What a request may hold, and what no answer may give away."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest

from fleet_events.strict_json import MAX_CONTAINERS
from fleet_kit.auth import LocalIssuer
from tests.integration.kit.http.conftest import Doors, Sender

pytestmark = pytest.mark.integration


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
    logged = [event["event"] for event in events]
    assert "Started server process" in " ".join(logged)  # uvicorn's own
    assert "Invalid HTTP request received." in logged
    assert any("a warning" in one for one in logged)  # from the warnings module
    assert any("RuntimeError" in event.get("exception", "") for event in events)
    assert "forged" not in logged
