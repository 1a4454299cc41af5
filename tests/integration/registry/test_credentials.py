"""API keys and revoked tokens on real servers: made at the registry, verified by every service without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from fleet_events import v1
from fleet_kit.api_keys import ApiKey
from tests.conftest import Mint, RunningService, RunService
from tests.integration.registry.conftest import Upstream, eventually

pytestmark = pytest.mark.integration

EVALUATIONS = "/v1/evaluations"


@pytest.fixture(scope="module")
async def evaluator(run_service: RunService) -> AsyncIterator[RunningService]:
    """Another service than the one that owns keys."""
    async with run_service("evaluator") as running:
        yield running


async def made(registry: RunningService, domain: str, **changes: Any) -> dict[str, Any]:
    body = {"name": "ci", "scopes": ["adapters:read"], "domains": [domain], **changes}
    answer = await registry.client.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def status(service: RunningService, path: str, token: str) -> int:
    async with httpx.AsyncClient(base_url=service.url, headers={"Authorization": f"Bearer {token}"}) as client:
        return (await client.get(path)).status_code


async def becomes(service: RunningService, path: str, token: str, wanted: int) -> None:
    async def is_so() -> bool:
        return await status(service, path, token) == wanted

    await eventually(is_so)


async def test_a_key_works_on_every_service_without_its_owner_and_after_a_restart_until_it_is_revoked(
    registry: RunningService, evaluator: RunningService, domain: str
) -> None:
    key = await made(registry, domain)
    await becomes(evaluator, EVALUATIONS, key["key"], 200)
    await becomes(registry, "/v1/adapters", key["key"], 200)
    assert await status(registry, f"/v1/adapters?domain={domain}z", key["key"]) == 403
    await registry.stop()
    try:
        await evaluator.kill()
        await evaluator.wait_ready()
        assert await status(evaluator, EVALUATIONS, key["key"]) == 200
    finally:
        await registry.start()
    revoked = await registry.client.post(f"/v1/keys/{key['key_id']}/revoke", json={"reason": "leaked"})
    assert (revoked.status_code, revoked.json()["revoked_by"]) == (200, "admin")
    await asyncio.wait_for(becomes(evaluator, EVALUATIONS, key["key"], 401), 5)
    await becomes(registry, "/v1/adapters", key["key"], 401)
    assert key["key"] not in registry.log + evaluator.log
    assert ApiKey.read(key["key"]).secret not in registry.log + evaluator.log  # type: ignore[union-attr]


async def test_a_key_has_at_most_the_rights_of_the_token_that_makes_it(
    registry: RunningService, domain: str, mint: Mint
) -> None:
    headers = {"Authorization": f"Bearer {mint(['admin', 'adapters:read'], [domain], 'dora')}"}
    async with httpx.AsyncClient(base_url=registry.url, headers=headers) as client:

        async def tried(**changes: Any) -> tuple[int, str]:
            body = {"name": "ci", "scopes": ["adapters:read"], "domains": [domain], **changes}
            answer = await client.post("/v1/keys", json=body)
            return answer.status_code, str(answer.json().get("detail", ""))

        assert await tried(scopes=["generate"]) == (403, "this token lacks the scope 'generate'")
        assert (await tried(domains=["*"]))[0] == 403
        assert (await tried(domains=[f"{domain}z"]))[0] == 403
        assert (await tried(domains=["No domain"]))[0] == 422
        assert (await tried(scopes=["everything"]))[0] == 422
        assert (await tried(expires_seconds=367 * 86_400))[0] == 422
        assert (await tried(scopes=["admin"]))[0] == 201
        listed = (await client.get("/v1/keys")).json()["keys"]
        assert [(one["created_by"], one["scopes"], one["domains"]) for one in listed] == [("dora", ["admin"], [domain])]
        assert not {"key", "secret_sha256"} & set(listed[0])


async def test_a_key_makes_no_keys_and_none_of_another_domain_can_be_seen_or_revoked(
    registry: RunningService, domain: str, mint: Mint
) -> None:
    key = await made(registry, domain, scopes=["admin"])
    await becomes(registry, "/v1/keys", key["key"], 200)
    body = {"name": "more", "scopes": ["admin"], "domains": [domain]}
    async with httpx.AsyncClient(base_url=registry.url) as client:
        refused = await client.post("/v1/keys", json=body, headers={"Authorization": f"Bearer {key['key']}"})
        assert (refused.status_code, refused.json()["title"]) == (403, "Token needed")
        stranger = {"Authorization": f"Bearer {mint(['admin'], [f'{domain}z'])}"}
        foreign, absent = [
            await client.post(f"/v1/keys/{name}/revoke", json={}, headers=stranger)
            for name in (key["key_id"], "0" * 16)
        ]
        assert (foreign.status_code, absent.status_code) == (404, 404)
        assert foreign.text.replace(key["key_id"], "ID") == absent.text.replace("0" * 16, "ID")
        assert (await client.get("/v1/keys", headers=stranger)).json() == {"keys": []}


async def test_the_last_use_of_a_key_is_kept(registry: RunningService, upstream: Upstream, domain: str) -> None:
    key = await made(registry, domain)
    assert key["last_used_at"] is None
    for minute in (5, 3):  # an older report that arrives late changes nothing
        at = datetime(2026, 1, 1, 12, minute, tzinfo=UTC)
        await upstream.publish(v1.ApiKeysUsed(uses=(v1.ApiKeyUse(key_id=key["key_id"], used_at=at),)))

    async def shown() -> bool:
        found = (await registry.client.get("/v1/keys")).json()["keys"]
        used = {one["key_id"]: one["last_used_at"] for one in found}
        return str(used[key["key_id"]]) == "2026-01-01T12:05:00Z"

    await eventually(shown)


async def test_a_revoked_subject_is_refused_everywhere_and_other_subjects_are_not(
    registry: RunningService, evaluator: RunningService, domain: str, mint: Mint
) -> None:
    bob, eve = (mint(["adapters:read"], [domain], f"{domain}-{name}") for name in ("bob", "eve"))
    assert await status(evaluator, EVALUATIONS, bob) == 200
    body = {"subject": f"{domain}-bob", "reason": "left"}
    answer = await registry.client.post("/v1/tokens/revoke", json=body)
    assert answer.status_code == 200, answer.text
    for service, path in ((evaluator, EVALUATIONS), (registry, "/v1/adapters")):
        await asyncio.wait_for(becomes(service, path, bob, 401), 5)
        assert await status(service, path, eve) == 200


async def test_a_token_is_revoked_by_its_id_by_the_fleets_administrator_alone(
    registry: RunningService, domain: str, mint: Mint
) -> None:
    import jwt

    first, second = (mint(["adapters:read"], [domain], f"{domain}-ada") for _ in range(2))
    jti = jwt.decode(first, options={"verify_signature": False})["jti"]
    stranger = {"Authorization": f"Bearer {mint(['admin'], [domain])}"}
    async with httpx.AsyncClient(base_url=registry.url, headers=stranger) as client:
        assert (await client.post("/v1/tokens/revoke", json={"jti": jti})).status_code == 403
    for wrong in ({}, {"jti": "a", "subject": "b"}, {"subject": "key:0123456789abcdef"}):
        assert (await registry.client.post("/v1/tokens/revoke", json=wrong)).status_code == 422
    assert (await registry.client.post("/v1/tokens/revoke", json={"jti": jti})).status_code == 200
    await becomes(registry, "/v1/adapters", first, 401)
    assert await status(registry, "/v1/adapters", second) == 200
