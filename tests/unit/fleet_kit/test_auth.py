"""Tokens: who may call is settled by a signature, what they may do by scopes, where by domains."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from fleet_kit.auth import Caller, LocalIssuer, Verifier
from fleet_kit.errors import Problem

pytestmark = pytest.mark.unit


@pytest.fixture
def issuer(tmp_path: Path) -> LocalIssuer:
    return LocalIssuer.create(tmp_path)


def verifier(folder: Path) -> Verifier:
    return Verifier(str(folder / "jwks.json"), "lorafleet")


async def test_a_minted_token_names_its_caller_scopes_and_domains(issuer: LocalIssuer, tmp_path: Path) -> None:
    token = LocalIssuer.open(tmp_path).mint("ada", ["train", "generate"], ["shop"])
    assert await verifier(tmp_path).verify(token) == Caller(
        "ada", frozenset({"train", "generate"}), frozenset({"shop"})
    )


@pytest.mark.parametrize("forge", ["expired", "other key", "no signature", "garbage"])
async def test_a_token_that_we_did_not_sign_or_that_is_over_is_refused(
    issuer: LocalIssuer, tmp_path: Path, forge: str
) -> None:
    import jwt

    match forge:
        case "expired":
            token = issuer.mint("ada", ["train"], ttl=timedelta(seconds=-1))
        case "other key":
            token = LocalIssuer.create(tmp_path / "other").mint("ada", ["admin"])
        case "no signature":
            claims = {"sub": "ada", "scope": "admin", "iss": "lorafleet", "aud": "lorafleet", "exp": 9e9}
            token = jwt.encode(claims, key="", algorithm="none")
        case _:
            token = "not.a.token"
    with pytest.raises(Problem) as caught:
        await verifier(tmp_path).verify(token)
    assert caught.value.status == 401


async def test_a_rotated_key_is_found_without_a_restart(issuer: LocalIssuer, tmp_path: Path) -> None:
    checks = verifier(tmp_path)
    await checks.verify(issuer.mint("ada", ["train"]))
    newer = LocalIssuer.create(tmp_path / "new")
    keys = issuer.jwks()["keys"] + newer.jwks()["keys"]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": keys}))
    checks._keys._tried_at -= 60  # unknown keys are looked up once in a while
    with pytest.raises(Problem):
        await checks.verify(newer.mint("bob", ["train"]))  # answered at once; the keys are read meanwhile
    while checks._keys._reading is not None:
        await asyncio.sleep(0.001)
    assert (await checks.verify(newer.mint("bob", ["train"]))).subject == "bob"


def test_the_signing_key_is_readable_by_its_owner_alone(issuer: LocalIssuer, tmp_path: Path) -> None:
    assert (tmp_path / "issuer.pem").stat().st_mode & 0o777 == 0o600


def test_an_unknown_scope_cannot_be_minted(issuer: LocalIssuer) -> None:
    with pytest.raises(ValueError, match="unknown scopes \\['root'\\]"):
        issuer.mint("ada", ["root"])


@pytest.mark.parametrize(
    ("subject", "scopes", "domains"),
    [
        ("", ["train"], ["shop"]),
        ("a\nb", ["train"], ["shop"]),
        ("ada", ["train"], ["shop*"]),
        ("ada", ["fleet:admin"], ["shop"]),
    ],
)
def test_what_no_verifier_would_take_cannot_be_minted(
    issuer: LocalIssuer, subject: str, scopes: list[str], domains: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"sub|domain"):
        issuer.mint(subject, scopes, domains)


def test_a_caller_reaches_its_domains_and_no_others() -> None:
    caller = Caller("ada", frozenset(), frozenset({"shop"}))
    caller.reach("shop")
    with pytest.raises(Problem, match="domain 'bank'"):
        caller.reach("bank")
    assert Caller("root", frozenset(), frozenset({"*"})).reaches("bank")
