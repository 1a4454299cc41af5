"""What a caller of another domain learns of the registry's adapters, provenance, policies and refusals: nothing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.conftest import Mint, RunningService
from tests.integration.registry.conftest import Upstream
from tests.integration.registry.test_answers import answer, followed
from tests.integration.registry.uploads import files_of, upload
from tests.integration.strangers import LETTERS, Stranger

pytestmark = pytest.mark.integration

SCOPES = ["adapters:read", "adapters:write", "adapters:approve", "admin"]


async def test_another_domains_adapters_read_like_none_at_every_route(
    *,
    registry: RunningService,
    upstream: Upstream,
    peft: Path,
    domain: str,
    mint: Mint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uploaded = (await upload(registry.client, peft, domain=domain)).json()
    theirs, given = uploaded["adapter_id"], answer(upstream, uploaded)
    await upstream.publish(given)
    await followed(registry.client, given.generation_id)
    await registry.client.put(f"/v1/policies/{domain}", json={})
    headers = {"Authorization": f"Bearer {mint(SCOPES, [f'{domain}z'])}"}
    async with httpx.AsyncClient(base_url=registry.url, headers=headers, timeout=30) as client:
        stranger = Stranger(client)
        foreign = {"adapter_id": theirs, "generation_id": given.generation_id, "family": uploaded["family"]}
        others = {"domain": "tried below", "migration_id": "tried in test_migrations", "key_id": "in test_credentials"}
        others |= LETTERS
        await stranger.walk(foreign, others, params={"time": "2026-01-01T00:00:00Z"})
        for method, path in (("GET", ""), ("PUT", ""), ("GET", "/audit")):
            body = {} if method == "GET" else {"json": {}}
            # The caller names the domain itself: equal, whether or not anybody has it.
            await stranger.compare(method, f"/v1/policies/ID{path}", domain, f"{domain}y", status=403, **body)
        for path in ("/v1/adapters", "/v1/refusals", "/v1/updates", "/v1/migrations"):
            await stranger.compare("GET", path, domain, f"{domain}y", status=403, params={"domain": "ID"})
        await stranger.compare("GET", "/v1/compare", theirs, f"{theirs}9", params={"versions": "a,ID"})
        sent = await client.post("/v1/adapters", data={"domain": domain}, files=files_of(peft))
        assert sent.status_code == 403
        await stranger.refused("GET", "/admin/info")
        lists = ("adapters", "refusals", "statistics", "updates", "migrations")
        await stranger.sees_nothing_of(f'"{domain}"', *(f"/v1/{name}" for name in lists))
        with capsys.disabled():
            stranger.report("registry")
    kept = (await registry.client.get(f"/v1/adapters/{theirs}")).json()
    assert (kept["status"], kept["active"]) == ("pending_review", False)
