"""Tokens of identity providers: their keys are discovered, and rules make rights of their claims.

The claims are those that the providers document: Entra ID (access token claims reference), Okta (JWT access tokens),
Google (OpenID Connect ID tokens), Keycloak (realm roles).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet_kit.access_rules import read_rules
from fleet_kit.auth import LocalIssuer, Verifier
from fleet_kit.caller import Caller
from fleet_kit.errors import Problem
from tests.unit.fleet_kit.discovery_server import DiscoveryServer

pytestmark = pytest.mark.unit

TENANT = "/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS: dict[str, Any] = {
    "RS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}


def entra(**changes: Any) -> dict[str, Any]:
    """An access token of Entra ID, version 2.0."""
    claims = {
        "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
        "azp": "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
        "azpacr": "0",
        "groups": ["0e129f7f-0000-0000-0000-000000000001", "0e129f7f-0000-0000-0000-000000000002"],
        "name": "Ada",
        "nbf": int(time.time()) - 5,
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        "preferred_username": "ada@example.com",
        "roles": ["Trainer"],
        "scp": "access_as_user Fleet.Read",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
        "uti": "fqiBqXLPj0eQa82S-IYFAA",
        "ver": "2.0",
    }
    return claims | changes


def okta(**changes: Any) -> dict[str, Any]:
    """An access token of an Okta authorization server."""
    claims = {
        "ver": 1,
        "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
        "aud": "api://lorafleet",
        "cid": "0oa8o4aoo9aD1Zv5Y0h7",
        "uid": "00ujmkLgagxeRrAg20g3",
        "scp": ["openid", "fleet.generate"],
        "auth_time": int(time.time()) - 60,
        "sub": "ada@example.com",
        "groups": ["Everyone", "fleet-shop"],
    }
    return claims | changes


def google(**changes: Any) -> dict[str, Any]:
    """An ID token of Google."""
    claims = {
        "azp": "1234987819200.apps.googleusercontent.com",
        "aud": "1234987819200.apps.googleusercontent.com",
        "sub": "10769150350006150715113082367",
        "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
        "hd": "example.com",
        "email": "ada@example.com",
        "email_verified": True,
        "nonce": "0394852-3190485-2490358",
    }
    return claims | changes


def keycloak(**changes: Any) -> dict[str, Any]:
    """An access token of Keycloak; `aud` is a list where the client has several."""
    claims = {
        "jti": "f5d1b1c2-95b4-4bb6-9f3a-3b8a0e6b1b0e",
        "aud": ["lorafleet", "account"],
        "sub": "7d8c6f5e-93c4-4b5a-9d0a-2a4f0b1c9e11",
        "typ": "Bearer",
        "azp": "fleet-console",
        "acr": "1",
        "realm_access": {"roles": ["offline_access", "fleet-admin"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "scope": "openid email profile",
        "email_verified": True,
        "preferred_username": "ada",
    }
    return claims | changes


RULES: tuple[dict[str, Any], ...] = (
    {"name": "entra-trainers", "providers": "entra", "when": {"roles": "Trainer"}, "scopes": "train", "domains": "shop"},
    {
        "name": "entra-group",
        "providers": "entra",
        "when": {"groups": "0e129f7f-0000-0000-0000-000000000002", "scp": "access_as_user"},
        "scopes": ["generate"],
        "domains": ["bank", "shop"],
    },
    {"name": "okta-shop", "providers": "okta", "when": {"groups": ["fleet-shop"], "scp": "fleet.generate"},
     "scopes": ["generate", "feedback"], "domains": "shop"},
    {"name": "google-staff", "providers": "google", "when": {"hd": "example.com", "email_verified": True},
     "scopes": "generate", "domains": "*"},
    {"name": "keycloak-admins", "providers": "keycloak", "when": {"realm_access.roles": "fleet-admin"},
     "scopes": "fleet:admin", "domains": "*"},
)  # fmt: skip


@dataclass
class Providers:
    """Four providers on one local server, and a verifier that trusts them by `RULES`."""

    server: DiscoveryServer
    verifier: Verifier
    clients: Mapping[str, str] = field(default_factory=dict)

    async def caller(self, provider: str, claims: Mapping[str, Any], **header: Any) -> Caller:
        return await self.verifier.verify(self.token(provider, claims, **header))

    def token(self, provider: str, claims: Mapping[str, Any], algorithm: str = "RS256", **header: Any) -> str:
        now = int(time.time())
        body = {"iss": self.server.issuer(provider), "iat": now, "exp": now + 3600, **claims}
        headers = {"kid": f"{provider}-{algorithm}", "typ": "JWT", **header}
        return jwt.encode(body, KEYS[algorithm], algorithm=algorithm, headers=headers)


def provider_file(server: DiscoveryServer) -> dict[str, Any]:
    return {
        "providers": [
            {
                "name": "entra",
                "issuer": server.issuer("entra"),
                "audience": entra()["aud"],
                "clients": [entra()["azp"]],
                "subject": "oid",
            },
            {"name": "okta", "issuer": server.issuer("okta"), "audience": "api://lorafleet"},
            {"name": "google", "issuer": server.issuer("google"), "audience": google()["aud"]},
            {"name": "keycloak", "issuer": server.issuer("keycloak"), "audience": "lorafleet"},
        ],
        "rules": list(RULES),
    }


@pytest.fixture
async def providers(tmp_path: Path) -> AsyncIterator[Providers]:
    paths = {"entra": TENANT, "okta": "/oauth2/default", "google": "", "keycloak": "/realms/fleet"}
    async with DiscoveryServer.serving(paths, KEYS) as server:
        LocalIssuer.create(tmp_path)
        (tmp_path / "rules.json").write_text(json.dumps(provider_file(server)))
        rules = read_rules(tmp_path / "rules.json")
        yield Providers(server, Verifier(str(tmp_path / "jwks.json"), "lorafleet", skew=10, rules=rules))


async def test_entra_roles_groups_and_scopes_give_each_rules_rights_in_its_domains_alone(providers: Providers) -> None:
    caller = await providers.caller("entra", entra())
    assert caller.subject == f"entra:{entra()['oid']}"
    assert caller.scopes == {"train", "generate"}
    assert caller.domains == {"shop", "bank"}
    assert caller.restricted_to("train").domains == {"shop"}
    assert caller.restricted_to("generate").domains == {"shop", "bank"}
    assert caller.restricted_to("train", "generate").domains == {"shop"}
    assert not caller.can("train")
    assert caller.restricted_to("train").can("train")
    assert caller.narrowed(frozenset({"bank"})).restricted_to("train").domains == frozenset()


@pytest.mark.parametrize("algorithm", KEYS)
async def test_each_providers_token_is_verified_by_discovered_keys(providers: Providers, algorithm: str) -> None:
    for name, claims, scopes, domains in (
        ("okta", okta(), {"generate", "feedback"}, {"shop"}),
        ("google", google(), {"generate"}, {"*"}),
        ("keycloak", keycloak(), {"fleet:admin"}, {"*"}),
    ):
        caller = await providers.caller(name, claims, algorithm=algorithm)
        assert caller.subject == f"{name}:{claims['sub']}"
        assert caller.scopes == scopes
        assert caller.domains == domains


async def test_a_token_that_no_rule_matches_may_do_nothing_and_is_told_what_rules_look_at(providers: Providers) -> None:
    for name, claims in (
        ("okta", okta(groups=["Everyone"])),
        ("google", google(hd="elsewhere.example")),
        ("google", google(email_verified="true")),
        ("keycloak", keycloak(realm_access={"roles": []})),
        ("keycloak", keycloak(realm_access="fleet-admin")),
    ):
        caller = await providers.caller(name, claims)
        assert (caller.scopes, caller.domains) == (frozenset(), frozenset())
        with pytest.raises(Problem, match=f"no access rule matches this token of '{name}'") as caught:
            caller.hold("generate")
        assert caught.value.status == 403


@pytest.mark.parametrize(
    "overage",
    [
        {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example/"}}},
        {"hasgroups": True},
    ],
)
async def test_entras_group_overage_is_refused_by_name(providers: Providers, overage: dict[str, Any]) -> None:
    claims = {name: value for name, value in entra(**overage).items() if name != "groups"}
    with pytest.raises(Problem, match="Entra's group overage") as caught:
        await providers.caller("entra", claims)
    assert caught.value.status == 403


async def test_tokens_for_others_of_others_or_out_of_their_time_are_refused(providers: Providers) -> None:
    now = int(time.time())
    tries = {
        "audience": ("okta", okta(aud="api://elsewhere")),
        "audience list": ("keycloak", keycloak(aud=["account", "elsewhere"])),
        "client": ("entra", entra(azp="ffffffff-8ddb-461a-bbee-02f9e1bf7b46")),
        "expired": ("okta", okta(exp=now - 11)),
        "not yet": ("entra", entra(nbf=now + 60)),
        "subject": ("entra", entra(oid=7)),
        "unknown issuer": ("okta", okta(iss="https://elsewhere.example")),
        "without iat": ("okta", okta(iat=None)),
    }
    for what, (name, claims) in tries.items():
        with pytest.raises(Problem) as caught:
            await providers.caller(
                name, {one: value for one, value in claims.items() if value is not None or one == "iat"}
            )
        assert caught.value.status == 401, what
    assert (await providers.caller("okta", okta(exp=now - 5))).scopes  # within the skew
    with pytest.raises(Problem, match="key id"):  # one provider's key signs nothing for another
        await providers.caller("okta", okta(), kid="keycloak-RS256")


async def test_a_key_signs_with_its_own_algorithm_alone(providers: Providers) -> None:
    await providers.caller("okta", okta())
    confused = providers.token("okta", okta(), algorithm="ES256", kid="okta-RS256")
    with pytest.raises(Problem) as caught:
        await providers.verifier.verify(confused)
    assert caught.value.status == 401


async def test_an_issuer_that_rotates_its_keys_is_asked_again_and_not_for_every_token(providers: Providers) -> None:
    await providers.caller("okta", okta())
    reads = providers.server.reads
    providers.server.kids["okta-new"] = "RS256"
    for _ in range(50):
        with pytest.raises(Problem):
            await providers.caller("okta", okta(), kid="okta-new")
    assert providers.server.reads - reads <= 2
    keys = providers.verifier._others[providers.server.issuer("okta")].keys
    keys._tried_at = float("-inf")  # its minimum interval is over
    with pytest.raises(Problem):
        await providers.caller("okta", okta(), kid="okta-new")
    while keys._reading is not None:
        await keys._reading
    assert (await providers.caller("okta", okta(), kid="okta-new")).scopes


async def test_a_discovery_document_of_another_issuer_or_without_https_is_not_taken(providers: Providers) -> None:
    for name, change in (
        ("okta", {"issuer": "https://elsewhere.example"}),
        ("google", {"jwks_uri": "http://192.0.2.1/"}),
    ):
        providers.server.changes[name] = change
        with pytest.raises(Problem) as caught:
            await providers.caller(name, okta() if name == "okta" else google())
        assert caught.value.status == 503
