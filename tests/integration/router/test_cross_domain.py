"""What a caller of another domain learns of the routing index, and what a service learns that acts for one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fleet_events.v1 import AdapterActivated
from fleet_kit.acting_for import ACT_FOR
from tests.integration.router.test_routing import BANKING, Publish, adapter, eventually, routes
from tests.integration.router.test_routing import publish as publish
from tests.integration.router.test_routing import router as router
from tests.integration.strangers import Stranger

pytestmark = pytest.mark.integration

QUERY = {"query": BANKING[0], "k": 50, "threshold": -1}


async def test_another_domains_routes_are_neither_listed_nor_matched(
    router: Any, publish: Publish, mint: Any, token_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = adapter("banking", BANKING)
    await publish(AdapterActivated(adapter=theirs, revision=1), theirs.adapter_id)

    async def indexed() -> bool:
        return theirs.adapter_id in await routes(router.client)

    await eventually(indexed)
    own = ["generate", "adapters:read", "admin"]
    every = [*own, "fleet:admin"]
    callers = {
        "another domain's token": {"Authorization": f"Bearer {mint(own, ['cooking'])}"},
        "a token of no domain": {"Authorization": f"Bearer {mint(own, [])}"},
        "a service for another domain": {"Authorization": f"Bearer {mint(every)}", ACT_FOR: "cooking"},
        "a service for no domain": {"Authorization": f"Bearer {mint(every)}", ACT_FOR: "-"},
        "inference for another domain": {"Authorization": f"Bearer {token_of('inference')}", ACT_FOR: "cooking"},
    }
    attempts = 0
    for who, headers in callers.items():
        async with httpx.AsyncClient(base_url=router.url, headers=headers) as client:
            stranger = Stranger(client)
            matches = await client.post("/v1/route", json=QUERY)
            assert (matches.status_code, matches.json()["matches"]) == (200, []), who
            await stranger.sees_nothing_of("banking", "/v1/routes")
            for domain in ("banking", "nobody"):  # named by the caller: equal, whether or not the domain exists
                await stranger.refused("POST", "/v1/route", json={**QUERY, "domains": [domain]})
            await stranger.refused("POST", "/v1/route", status=422, json={**QUERY, "domains": ["*"]})
            await stranger.refused("POST", "/admin/rebuild")
            await stranger.refused("GET", "/admin/info")
            assert not stranger.distinguished, stranger.distinguished
            attempts += stranger.attempts + 1
    async with httpx.AsyncClient(
        base_url=router.url, headers={**callers["a service for no domain"], ACT_FOR: "banking"}
    ) as one:
        assert [match["domain"] for match in (await one.post("/v1/route", json=QUERY)).json()["matches"]] == ["banking"]
    with capsys.disabled():
        print(f"\nrouter: {attempts} attempts across domains, 0 told apart")
