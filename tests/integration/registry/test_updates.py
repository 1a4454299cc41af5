"""What runs where, which update is recommended for it, and the policy that applies it."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.registry.conftest import Get, Upstream, eventually
from tests.integration.registry.test_loop import registered, status

pytestmark = pytest.mark.integration


async def set_policy(registry: RunningService, domain: str, **policy: object) -> None:
    answer = await registry.client.put(f"/v1/policies/{domain}", json=policy)
    assert answer.status_code == 200, answer.text


async def better(upstream: Upstream, adapter: dict[str, Any], old: dict[str, Any], points: float) -> str:
    """The version is scored `points` better than the old one, significantly; returns the evaluation."""
    comparison = v1.Comparison(
        compared_with=old["adapter_id"],
        evaluation_id="ev-old",
        samples=40,
        difference=points,
        ci_low=points - 2,
        ci_high=points + 2,
    )
    scored = upstream.scored(adapter, 90, comparison=comparison)
    await upstream.publish(scored)
    return scored.evaluation_id


async def running(registry: RunningService, domain: str) -> Any:
    found = await registry.client.get("/v1/updates", params={"domain": domain})
    assert found.status_code == 200, found.text
    return {one["running"]: one for one in found.json()["updates"]}


@pytest.mark.requirement("AS-8.1")
async def test_a_better_version_is_recommended_once_for_what_runs_and_listed_with_where_it_runs(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    await set_policy(registry, domain, activate_on_approval=False)
    old = await registered(upstream, adapters, domain)
    await upstream.publish(upstream.scored(old, 92))
    await status(registry, old["adapter_id"], "approved")
    await registry.client.post(f"/v1/adapters/{old['adapter_id']}/activate", json={})
    load = v1.AdapterLoaded(
        adapter_id=old["adapter_id"], domain=domain, artifact_sha256=old["artifact_sha256"], replica="r-1",
        load_ms=1, modules_bound=30, max_delta=1,
    )  # fmt: skip
    await upstream.publish(load)
    await upstream.publish(load.model_copy(update={"replica": "r-2"}))

    async def held(by: list[str]) -> Any:
        found = (await running(registry, domain)).get(old["adapter_id"])
        return found if found and found["held_by"] == by else None

    found = await eventually(lambda: held(["r-1", "r-2"]))
    assert (found["active"], found["available"], found["why"]) == (True, "", "no higher version is approved")
    gone = v1.AdapterUnloaded(adapter_id=old["adapter_id"], domain=domain, replica="r-2", reason="evicted")
    await upstream.publish(gone)
    await eventually(lambda: held(["r-1"]))

    new = await registered(upstream, adapters, domain, seed=2)
    first = await better(upstream, new, old, 5)
    await status(registry, new["adapter_id"], "approved")
    await better(upstream, new, old, 6)

    async def twice() -> Any:
        path = f"/v1/adapters/{new['adapter_id']}/evaluations"
        return len((await registry.client.get(path)).json()["evaluations"]) == 2

    await eventually(twice)
    (event,) = await eventually(lambda: upstream.published(v1.UpdateRecommended, domain=domain))
    assert (event.running, event.available, event.applied) == (old["adapter_id"], new["adapter_id"], False)
    assert (event.difference, event.ci_low, event.samples) == (5, 3, 40)
    assert event.improvement == pytest.approx(100 * 5 / 85)
    assert first
    found = (await running(registry, domain))[old["adapter_id"]]
    assert found["recommended"]
    assert (found["available"], found["difference"]) == (new["adapter_id"], 6)


@pytest.mark.requirement("AS-8.1")
async def test_a_policy_applies_updates_and_nobody_s_rollback_is_undone(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    await set_policy(registry, domain, activate_on_approval=False, apply_updates=True)
    old, new, slightly = [await registered(upstream, adapters, domain, seed=seed) for seed in range(3)]
    await upstream.publish(upstream.scored(old, 92))
    await status(registry, old["adapter_id"], "approved")
    await registry.client.post(f"/v1/adapters/{old['adapter_id']}/activate", json={})
    await better(upstream, slightly, old, 1)  # under 2 %
    await status(registry, slightly["adapter_id"], "approved")
    await better(upstream, new, old, 8)

    async def taken_over() -> Any:
        return (await registry.client.get(f"/v1/adapters/{new['adapter_id']}")).json()["active"]

    await eventually(taken_over)
    (event,) = await eventually(lambda: upstream.published(v1.UpdateRecommended, domain=domain))
    assert (event.available, event.applied) == (new["adapter_id"], True)
    trail = (await registry.client.get(f"/v1/adapters/{new['adapter_id']}/audit")).json()["entries"]
    assert trail[-1]["reason"].startswith("update: better: +8.0 points")

    await registry.client.post(f"/v1/adapters/{old['adapter_id']}/activate", json={"reason": "it was better"})
    evaluation = await better(upstream, new, old, 9)
    found = f"/v1/adapters/{new['adapter_id']}"

    async def judged_again() -> Any:
        return (await registry.client.get(found)).json()["evaluation"]["evaluation_id"] == evaluation

    await eventually(judged_again)
    assert not (await registry.client.get(found)).json()["active"]
    update = (await running(registry, domain))[old["adapter_id"]]
    assert not update["recommended"]
