"""Every route of every service against tokens that must not be taken."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from fleet_kit.acting_for import ACT_FOR
from fleet_kit.auth import SCOPES, LocalIssuer, Verifier
from tests.contract.test_http import OPEN_DOORS, app, operations  # noqa: F401 - `app` is a fixture

pytestmark = pytest.mark.unit

GOOD: dict[str, Any] = {
    "iss": "lorafleet",
    "aud": "lorafleet",
    "sub": "ada",
    "scope": " ".join(SCOPES),
    "domains": ["*"],
}


@pytest.fixture
def issuer(tmp_path: Path) -> LocalIssuer:
    """The one whose keys the service reads."""
    return LocalIssuer.open(tmp_path)


def signed(issuer: LocalIssuer, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token that this issuer signed, whatever it claims; a claim that is ... is left out."""
    now = int(time.time())
    body = {**GOOD, "iat": now, "exp": now + 600, **claims}
    present = {name: value for name, value in body.items() if value is not ...}
    return raw(issuer._key, {"alg": "EdDSA", "kid": issuer._kid, **(headers or {})}, json.dumps(present))


def raw(key: Ed25519PrivateKey, header: dict[str, Any], claims: str) -> str:
    """A signed token of any content: a library would refuse to make some of these."""
    parts = [json.dumps({name: value for name, value in header.items() if value is not ...}), claims]
    text = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return f"{text}.{base64.urlsafe_b64encode(key.sign(text.encode())).decode().rstrip('=')}"


def bad_headers(issuer: LocalIssuer, stranger: LocalIssuer) -> Iterator[tuple[str, str | None]]:
    """Name → Authorization header."""
    yield "none", None
    for value in ("", "Bearer", "Bearer ", "Basic YWRhOmFkYQ==", "Bearer garbage", "Bearer a.b.c", "Bearer ...."):
        yield repr(value), value
    yield "no scheme", signed(issuer)
    for name, token in bad_tokens(issuer, stranger):
        yield name, f"Bearer {token}"


def bad_tokens(issuer: LocalIssuer, stranger: LocalIssuer) -> Iterator[tuple[str, str]]:
    now, good = int(time.time()), signed(issuer)
    public = issuer._key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body, signature = good.split(".")
    yield "without its signature", f"{head}.{body}."
    yield "changed after signing", f"{head}.{body[:-2]}AA.{signature}"
    yield "a signature of zeros", f"{head}.{body}.{'A' * 86}"
    yield "alg none", jwt.encode({**GOOD, "exp": now + 600}, "", algorithm="none", headers={"kid": issuer._kid})
    claims = base64.urlsafe_b64encode(json.dumps({**GOOD, "exp": now + 600}).encode()).decode().rstrip("=")
    for alg in ("HS256", "none", "None", "RS256", "ES256", "Ed448", ""):
        hmac_key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        top = base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": issuer._kid}).encode()).decode().rstrip("=")
        mac = base64.urlsafe_b64encode(hmac_key.sign(f"{top}.{claims}".encode(), public)).decode().rstrip("=")
        yield f"alg {alg!r}, keyed with the public key", f"{top}.{claims}.{mac}"
    yield "another issuer's key", signed(stranger)
    yield "another issuer's key under our key's id", signed(stranger, {"kid": issuer._kid})
    for kid in (..., None, 7, "", "unknown", "../../etc/passwd", "a" * 5000, "\x00", ["a"]):
        yield f"kid {str(kid)[:12]!r}", signed(issuer, {"kid": kid})
    yield "wrong issuer", signed(issuer, iss="elsewhere")
    yield "wrong audience", signed(issuer, aud="elsewhere")
    for claim in ("iss", "aud", "sub", "exp"):
        for value in (..., None, [], {}, 7.5):
            if claim == "exp" and value == 7.5:
                continue  # that is a time, and long over
            yield f"{claim} {value!r}", signed(issuer, **{claim: value})
    yield "expired", signed(issuer, exp=now - 1)
    yield "not yet valid", signed(issuer, nbf=now + 600)
    yield "issued tomorrow", signed(issuer, iat=now + 86_400)
    for value in ("soon", [now + 600], True):
        yield f"exp {value!r}", signed(issuer, exp=value if value is not True else {"a": 1})
    for text in ("Infinity", "-Infinity", "NaN", "1e999", "1" * 5000, "[" * 3000 + "]" * 3000):
        yield (
            f"exp {text[:9]}",
            raw(issuer._key, {"alg": "EdDSA", "kid": issuer._kid}, json.dumps(GOOD)[:-1] + f', "exp": {text}}}'),
        )
    for wrong in (
        "shop*",
        "*",
        "shop",
        7,
        True,
        None,
        {"*": 1},
        ["shop*"],
        [["*"]],
        [7],
        [None],
        ["Shop"],
        ["a\x00"],
        ["\ud800"],
    ):
        yield f"domains {wrong!r}", signed(issuer, domains=wrong)
    yield "too many domains", signed(issuer, domains=["shop"] * 1001)
    for wrong in (7, ["admin"], {"admin": 1}, None, True, "admin\x00"):
        yield f"scope {wrong!r}", signed(issuer, scope=wrong)
    for wrong in ("", " ", "a" * 256, "a\x00", "a\nb", "\ud800"):
        yield f"sub {wrong[:6]!r}", signed(issuer, sub=wrong)
    for body in ("[]", '"text"', "7", "null", "{", ""):
        yield f"claims {body!r}", raw(issuer._key, {"alg": "EdDSA", "kid": issuer._kid}, body)
    yield "too long", signed(issuer, sub="a" * 40_000)


async def test_every_route_refuses_every_bad_token(
    app: FastAPI,  # noqa: F811
    issuer: LocalIssuer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app.state.verifier = Verifier(str(tmp_path / "jwks.json"), "lorafleet")
    app.state.service = None  # nothing may be touched before the caller is known
    doors = [(method, path) for method, path, _ in operations(app) if path not in OPEN_DOORS]
    tokens = list(bad_headers(issuer, LocalIssuer.create(tmp_path / "stranger")))
    taken: list[str] = []
    sent = 0
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for number, (method, path) in enumerate(doors):
            url = path.replace("{", "").replace("}", "")
            # All of them at the first door, which asks the same verifier, and a third of them at each other one.
            for name, header in tokens if number == 0 else tokens[number % 3 :: 3]:
                sent += 1
                headers = {} if header is None else {"Authorization": header}
                answer = await client.request(method, url, json={}, headers=headers)
                if answer.status_code != 401:
                    taken.append(f"{method} {path} with {name}: {answer.status_code} {answer.text[:200]}")
    assert not taken, "\n".join(taken[:20])
    assert len({name for name, _ in tokens}) == len(tokens) > 80
    with capsys.disabled():
        print(f"\n{app.title}: {len(doors)} routes, {len(tokens)} bad tokens: {sent} requests, all refused with 401")


@pytest.mark.parametrize("value", ["", "shop*", "*shop", "Shop", "shop,,bank", '["*"]', "a" * 70_000])
async def test_a_route_refuses_a_narrowing_that_it_cannot_read(
    app: FastAPI,  # noqa: F811
    issuer: LocalIssuer,
    tmp_path: Path,
    value: str,
) -> None:
    app.state.verifier = Verifier(str(tmp_path / "jwks.json"), "lorafleet")
    app.state.service = None
    headers = {"Authorization": f"Bearer {signed(issuer)}", ACT_FOR: value}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.get("/admin/info", headers=headers)
    assert (answer.status_code, answer.json().get("field")) == (400, ACT_FOR)


@pytest.mark.parametrize("narrowed", ["token", "header"])
async def test_what_concerns_the_whole_fleet_is_refused_to_the_administrator_of_one_domain(
    app: FastAPI,  # noqa: F811
    issuer: LocalIssuer,
    tmp_path: Path,
    narrowed: str,
) -> None:
    """Also to one that acts for a caller of one domain, and to a domain's administrator without the fleet's scope."""
    app.state.verifier = Verifier(str(tmp_path / "jwks.json"), "lorafleet")
    app.state.service = None
    every = {path for _, path, _ in operations(app) if path.startswith("/admin/")}
    fleet_wide = every - {"/admin/adapters", "/admin/preload", "/admin/evict"}
    mine = {"Authorization": f"Bearer {signed(issuer, domains=['shop'])}"}
    acting = {"Authorization": f"Bearer {signed(issuer)}", ACT_FOR: "shop"}
    scoped = {"Authorization": f"Bearer {signed(issuer, scope='admin')}"}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for method, path, _ in operations(app):
            if path not in fleet_wide:
                continue
            for headers in (mine if narrowed == "token" else acting, scoped):
                answer = await client.request(method, path, json={}, headers=headers)
                assert answer.status_code == 403, f"{method} {path}: {answer.text}"
                assert "fleet:admin" in answer.text, path
