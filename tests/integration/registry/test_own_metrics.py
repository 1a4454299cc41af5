"""Numbers that users measured themselves: set with who and when, shown beside the fleet's own, kept in the audit."""

from __future__ import annotations

import httpx
import pytest

from tests.conftest import Mint, RunningService
from tests.integration.registry.conftest import Get, Upstream
from tests.integration.registry.test_loop import registered

pytestmark = pytest.mark.integration


@pytest.mark.requirement("LA-1.7")
async def test_a_metric_is_set_changed_and_removed_with_who_and_when_and_is_audited(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    adapter = await registered(upstream, adapters, domain)
    path = f"/v1/adapters/{adapter['adapter_id']}"
    full = {"value": 0.93, "ci_low": 0.9, "ci_high": 0.96, "samples": 300, "note": "counted by hand"}
    body = {"metrics": {"citations": full, "complaints": {"value": 4}}, "reason": "quarterly review"}
    found = await registry.client.put(f"{path}/metrics", json=body)
    assert found.status_code == 200, found.text
    own = found.json()["own_metrics"]
    assert {name: value for name, value in own["citations"].items() if name in full} == full
    assert (own["citations"]["set_by"], bool(own["citations"]["set_at"])) == ("admin", True)
    found = await registry.client.put(f"{path}/metrics", json={"metrics": {"complaints": {"value": 3}}})
    assert found.json()["own_metrics"]["complaints"]["value"] == 3
    assert found.json()["own_metrics"]["citations"]["value"] == 0.93  # what is not named stays
    await registry.client.put(f"{path}/metrics", json={"metrics": {"complaints": None}})
    details = (await registry.client.get(path)).json()
    assert list(details["own_metrics"]) == ["citations"]
    trail = (await registry.client.get(f"{path}/audit")).json()["entries"]
    told = [(one["action"], one["reason"], sorted(one["before"]), sorted(one["after"])) for one in trail]
    assert told[1:] == [
        ("metrics_set", "quarterly review", [], ["citations", "complaints"]),
        ("metrics_set", "metrics set", ["complaints"], ["complaints"]),
        ("metrics_set", "metrics set", ["complaints"], []),
    ]
    assert trail[1]["after"]["citations"] == full
    other = await registered(upstream, adapters, domain, seed=2)
    names = f"{adapter['adapter_id']},{other['adapter_id']}"
    compared = (await registry.client.get("/v1/compare", params={"versions": names})).json()
    metric = compared["versions"][0]["metrics"]["citations"]
    assert metric == {"value": 0.93, "ci_low": 0.9, "ci_high": 0.96, "samples": 300, "source": "user admin"}


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"train_loss": {"value": 0.1}}, "measured by the fleet itself"),
        ({"with space": {"value": 0.1}}, "pattern"),
        ({"one": {"value": 1, "ci_low": 0}}, "both ci_low and ci_high"),
        ({"one": {"value": 1, "ci_low": 2, "ci_high": 3}}, "expected ci_low <= value <= ci_high"),
        ({}, "no metric is named"),
    ],
)
async def test_a_bad_metric_is_refused_and_nothing_is_set(
    *,
    registry: RunningService,
    upstream: Upstream,
    adapters: Get,
    domain: str,
    metrics: dict[str, object],
    told: str,
) -> None:
    adapter = await registered(upstream, adapters, domain)
    path = f"/v1/adapters/{adapter['adapter_id']}"
    body = {"metrics": {"fine": {"value": 1}, **metrics} if metrics else {}}
    found = await registry.client.put(f"{path}/metrics", json=body)
    assert found.status_code == 422
    assert told in found.text
    assert (await registry.client.get(path)).json()["own_metrics"] == {}


async def test_who_may_only_read_sets_no_metric(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str, mint: Mint
) -> None:
    adapter = await registered(upstream, adapters, domain)
    headers = {"Authorization": f"Bearer {mint(['adapters:read'], [domain])}"}
    async with httpx.AsyncClient(base_url=registry.url, headers=headers, timeout=30) as reader:
        found = await reader.put(f"/v1/adapters/{adapter['adapter_id']}/metrics", json={"metrics": {"a": {"value": 1}}})
    assert found.status_code == 403
