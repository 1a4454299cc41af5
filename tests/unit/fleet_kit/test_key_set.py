"""The issuer's keys: what a key set may hold, and that no caller waits for an issuer that is slow or gone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet_kit import key_set
from fleet_kit.auth import LocalIssuer, Verifier
from fleet_kit.errors import Problem
from fleet_kit.key_set import KeySet, UnknownKey, keys_of

pytestmark = pytest.mark.unit


@dataclass
class Issuer:
    """An HTTP server on loopback that gives a key set, hangs, or refuses."""

    local: LocalIssuer
    mode: str = "good"
    reads: int = 0
    url: str = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reads += 1
        if b"\r\n\r\n" not in await reader.read(10_000):
            return
        if self.mode == "slow":
            await asyncio.sleep(60)
        body = json.dumps(self.local.jwks()).encode()
        status = "200 OK"
        match self.mode:
            case "huge":
                body = b" " * (key_set.MAX_BYTES + 10)
            case "broken":
                body = b'{"keys": [1e999]}'
            case "gone":
                status = "503 Gone"
            case "moved":
                status = "302 Found\r\nLocation: http://127.0.0.1:9/"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(issuer: Issuer) -> AsyncIterator[Issuer]:
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    try:
        yield issuer
    finally:
        server.close()


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with serving(Issuer(LocalIssuer.create(tmp_path))) as running:
        yield running


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set, "FETCH_SECONDS", 1.5)


def kid_of(issuer: Issuer) -> str:
    return issuer.local.jwks()["keys"][0]["kid"]


async def took(keys: KeySet, kid: str) -> float:
    begun = time.perf_counter()
    await keys.key(kid)
    return time.perf_counter() - begun


async def until_read(keys: KeySet) -> None:
    """Wait for the read that is under way."""
    while keys._reading is not None:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("mode", ["slow", "gone", "huge", "broken", "moved"])
async def test_known_keys_stay_good_and_no_caller_waits_while_the_issuer_is_down(issuer: Issuer, mode: str) -> None:
    keys = KeySet(issuer.url, max_age=0.4, keep=60, between=0.05)
    await keys.key(kid_of(issuer))
    issuer.mode = mode
    slowest = 0.0
    for _ in range(40):  # 2 s: past max_age, through several failing reads
        slowest = max(slowest, await took(keys, kid_of(issuer)))
        await asyncio.sleep(0.05)
    assert issuer.reads >= 2
    assert slowest < 0.4  # a read that hangs takes 1.5 s


async def test_keys_end_when_they_could_not_be_read_for_their_longer_limit_and_come_back(issuer: Issuer) -> None:
    keys = KeySet(issuer.url, max_age=60, keep=600, between=0)
    await keys.key(kid_of(issuer))
    issuer.mode = "gone"
    keys._read_at -= 61
    assert await keys.key(kid_of(issuer))
    await until_read(keys)
    assert await keys.key(kid_of(issuer))
    await until_read(keys)
    keys._read_at -= 600
    with pytest.raises(Problem) as caught:
        await keys.key(kid_of(issuer))
    assert (caught.value.status, caught.value.extensions["retry_after"]) == (503, 2)
    issuer.mode = "good"
    assert await keys.key(kid_of(issuer))


async def test_an_unknown_key_id_is_answered_at_once_and_reads_the_set_once_in_a_while(issuer: Issuer) -> None:
    keys = KeySet(issuer.url, between=30)
    await keys.key(kid_of(issuer))
    issuer.mode, keys._tried_at = "slow", float("-inf")
    begun = time.perf_counter()
    for number in range(200):
        with pytest.raises(UnknownKey):
            await keys.key(f"made-up-{number}")
    assert await took(keys, kid_of(issuer)) < 0.1
    assert time.perf_counter() - begun < 1.0
    async with asyncio.timeout(10):
        while issuer.reads < 2:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    assert issuer.reads == 2


async def test_after_a_quiet_time_a_withdrawn_key_is_not_good_for_one_more_request(
    issuer: Issuer, tmp_path: Path
) -> None:
    keys = KeySet(issuer.url, max_age=60, keep=600, between=0)
    withdrawn = kid_of(issuer)
    await keys.key(withdrawn)
    issuer.local = LocalIssuer.create(tmp_path / "new")
    keys._read_at -= 121  # more than twice max_age
    with pytest.raises(UnknownKey):
        await keys.key(withdrawn)
    assert await keys.key(kid_of(issuer))


async def test_a_service_that_never_read_keys_refuses_with_503_and_shares_one_read(issuer: Issuer) -> None:
    issuer.mode = "slow"
    keys = KeySet(issuer.url)
    got = await asyncio.gather(*(keys.key("any") for _ in range(50)), return_exceptions=True)
    assert {getattr(one, "status", one) for one in got} == {503}
    assert issuer.reads == 1


async def test_a_cancelled_request_does_not_end_the_read_that_others_wait_for(issuer: Issuer) -> None:
    keys = KeySet(issuer.url)
    first = asyncio.create_task(keys.key(kid_of(issuer)))
    others = [asyncio.create_task(keys.key(kid_of(issuer))) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    assert all(await asyncio.gather(*others))


def test_a_key_set_over_plain_http_from_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="expected https://"):
        KeySet("http://issuer.example/jwks.json")
    with pytest.raises(ValueError, match="jwks_keep_seconds"):
        KeySet("https://issuer.example/jwks.json", max_age=300, keep=10)


@pytest.mark.parametrize(
    "document",
    [
        *(b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [7, null]}', b"not json"),
        json.dumps({"keys": [{"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}]}).encode(),
        json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a"}]}).encode(),
        json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": ["A"]}]}).encode(),
        json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AAAA"}]}).encode(),
        json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}]}).encode(),
        json.dumps({"keys": [{"kty": "oct", "kid": "a", "k": "AAAA"}] * 101}).encode(),
        b'{"keys": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
    ids=lambda value: value[:60].decode(),
)
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"key|JSON|expected|EOF|EOL|recursion"):
        keys_of(document)


def test_keys_for_other_purposes_are_passed_over(tmp_path: Path) -> None:
    [good] = LocalIssuer.create(tmp_path).jwks()["keys"]
    others = [{"kty": "RSA", "kid": "r"}, {**good, "kid": "e", "use": "enc"}, {**good, "kid": ""}, {**good, "kid": 7}]
    assert list(keys_of(json.dumps({"keys": [*others, good]}).encode())) == [good["kid"]]


async def test_a_token_is_verified_with_keys_from_a_server(issuer: Issuer) -> None:
    token = issuer.local.mint("ada", ["train"], ["shop"])
    assert (await Verifier(issuer.url, "lorafleet").verify(token)).domains == {"shop"}
