"""`GET /v1/families/{family}/at`: what served at a moment, on the real database, by events and by people."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.conftest import Mint, RunningService
from tests.integration.registry.conftest import Get, Upstream
from tests.integration.registry.test_answers import answer, followed
from tests.integration.registry.test_loop import registered, status

pytestmark = pytest.mark.integration


async def at(registry: RunningService, family: str, moment: datetime, **query: Any) -> Any:
    reply = await registry.client.get(f"/v1/families/{family}/at", params={"time": moment.isoformat(), **query})
    assert reply.status_code == 200, reply.text
    return reply.json()


def now() -> datetime:
    return datetime.now(UTC)


async def test_each_moment_shows_what_served_approved_by_whom_on_what_evidence_and_under_which_policy(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    family, moments = f"{domain}-lora", [now()]
    first = await registered(upstream, adapters, domain)
    moments.append(now())
    good = upstream.scored(first, 93)
    await upstream.publish(good)
    await status(registry, first["adapter_id"], "approved")
    moments.append(now())
    policy = {"approve_at": 95, "reject_below": 60, "activate_on_approval": False}
    assert (await registry.client.put(f"/v1/policies/{domain}", json=policy)).status_code == 200
    second = await registered(upstream, adapters, domain, seed=2)
    middling = upstream.scored(second, 80, against=first["adapter_id"])
    await upstream.publish(middling)
    path = f"/v1/adapters/{second['adapter_id']}"
    deadline = asyncio.get_running_loop().time() + 20
    while (await registry.client.get(path)).json()["evaluation"] is None:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    for step in ("approve", "activate"):
        reply = await registry.client.post(f"{path}/{step}", json={"reason": f"{step} it"})
        assert reply.status_code == 200, reply.text
    moments.append(now())
    assert (await registry.client.post(f"{path}/reject", json={"reason": "it insults"})).status_code in (200, 202)
    moments.append(now())

    before, waiting, automatic, by_hand, gone = [
        await at(registry, family, moment) for moment in moments[:1] + moments[1:]
    ]
    assert (before["serving"], before["versions"], before["before"]) == (None, [], [])
    assert waiting["serving"] is None
    assert [one["status"] for one in waiting["versions"]] == ["pending_review"]
    assert waiting["policy"]["source"] == "default"

    serving = automatic["serving"]
    assert (serving["adapter_id"], serving["artifact_sha256"]) == (first["adapter_id"], first["artifact_sha256"])
    decision = serving["decision"]
    assert (decision["automatic"], decision["evidence"]) == (True, "recorded")
    assert decision["policy"]["rules"]["approve_at"] == 85
    score = decision["evaluation"]
    assert (score["evaluation_id"], score["score"]) == (good.evaluation_id, 93)
    assert (score["ci_low"], score["ci_high"]) == (90, 96)
    assert (score["golden_dataset_id"], score["judge"]) == ("golden-v1", "reference-judge/1")

    serving = by_hand["serving"]
    assert (serving["adapter_id"], serving["replaced"]) == (second["adapter_id"], first["adapter_id"])
    assert (serving["activated_by"], serving["activated_because"]) == ("admin", "activate it")
    decision = serving["decision"]
    assert (decision["automatic"], decision["by"], decision["reason"]) == (False, "admin", "approve it")
    assert decision["evaluation"]["evaluation_id"] == middling.evaluation_id
    assert decision["policy"]["rules"]["approve_at"] == 95
    assert by_hand["policy"]["source"] == "trail"
    assert [one["action"] for one in by_hand["after"]] == ["deactivated", "rejected"]

    assert gone["serving"] is None
    assert [one["status"] for one in gone["versions"]] == ["approved", "rejected"]
    assert gone["after"] == []
    few = await at(registry, family, moments[-1], entries=1)
    assert [one["action"] for one in few["before"]] == ["rejected"]


async def test_an_answer_shows_its_version_as_it_stood_then(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    version = await registered(upstream, adapters, domain)
    score = upstream.scored(version, 93)
    await upstream.publish(score)
    await status(registry, version["adapter_id"], "approved")
    event = answer(upstream, version)
    await upstream.publish(event, at=now())
    await followed(registry.client, event.generation_id)
    path = f"/v1/adapters/{version['adapter_id']}/reject"
    assert (await registry.client.post(path, json={"reason": "it insults"})).status_code in (200, 202)
    (adapter,) = (await followed(registry.client, event.generation_id))["adapters"]
    then = adapter["when_answered"]
    assert (then["status"], then["active"]) == ("approved", True)
    assert then["decision"]["evaluation"]["evaluation_id"] == score.evaluation_id
    assert then["activated_by"] == "automated-pipeline"
    assert then["since"] >= then["decision"]["at"], "data set, training, evaluation, approval, activation, answer"
    (link,) = adapter["chain"]
    assert (link["dataset"]["dataset_id"], bool(link["configuration"]["job_id"])) == (f"ds-{domain}", True)


async def test_a_family_of_another_domain_reads_like_none_and_a_wrong_time_is_refused(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str, mint: Mint
) -> None:
    await registered(upstream, adapters, domain)
    path, time = f"/v1/families/{domain}-lora/at", {"time": now().isoformat()}
    token = mint(["adapters:read"], [f"{domain}-b"])
    async with httpx.AsyncClient(base_url=registry.url, headers={"Authorization": f"Bearer {token}"}) as stranger:
        assert (await stranger.get(path, params=time)).status_code == 404
    assert (await registry.client.get("/v1/families/none-lora/at", params=time)).status_code == 404
    for wrong in ("2026-01-01T00:00:00", (now() + timedelta(minutes=5)).isoformat(), ""):
        reply = await registry.client.get(path, params={"time": wrong})
        assert (reply.status_code, reply.json()["field"]) == (422, "time"), reply.text
