"""Trainings, scores, answers and ratings that come twice, late or wrong count once or go to the dead letters."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.registry.conftest import Get, Upstream, eventually
from tests.integration.registry.test_loop import registered, status

pytestmark = pytest.mark.integration


async def test_a_training_published_three_times_is_one_version(
    upstream: Upstream, adapters: Get, domain: str, registry: RunningService
) -> None:
    event = await upstream.trained(domain)
    name = await upstream.publish(event, id=secrets.token_hex(8))
    await eventually(lambda: adapters(domain))
    await upstream.publish(event, id=name)  # the same event again: the inbox
    await upstream.publish(event)  # the same job under a new event id: the domain
    marker = await upstream.trained(f"{domain}-x")
    await upstream.publish(marker)
    await eventually(lambda: adapters(f"{domain}-x"))
    assert len(await adapters(domain)) == 1
    audit = (await registry.client.get(f"/v1/adapters/{domain}-lora-v1.0.0/audit")).json()["entries"]
    assert [entry["action"] for entry in audit] == ["registered"]


async def test_a_score_published_three_times_or_late_decides_once(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    adapter = await registered(upstream, adapters, domain)
    event = upstream.scored(adapter, 80)
    await upstream.publish(event)
    await upstream.publish(event)
    await upstream.publish(upstream.scored(adapter, 99), at=datetime.now(UTC) - timedelta(days=3))

    async def three() -> Any:
        found = await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}/evaluations")
        return len(found.json()["evaluations"]) == 2

    await eventually(three)
    found = (await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}")).json()
    assert found["status"] == "pending_review"
    assert found["metrics"]["llm_judge_score"] == 80
    audit = (await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}/audit")).json()["entries"]
    assert [entry["action"] for entry in audit] == ["registered", "review_requested"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"artifact_sha256": hashlib.sha256(b"forged").hexdigest()}, hashlib.sha256(b"forged").hexdigest()),
        ({"domain": "another"}, "belongs to"),
        ({"adapter_id": "nobody-lora-v1.0.0"}, "no adapter 'nobody-lora-v1.0.0'"),
    ],
)
async def test_a_score_that_is_not_about_these_bytes_goes_to_the_dead_letters(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str, change: dict[str, str], reason: str
) -> None:
    adapter = await registered(upstream, adapters, domain)
    await upstream.publish(upstream.scored(adapter, 99, **change))

    async def dead() -> Any:
        return any(reason in each for each in await upstream.dead_reasons())

    await eventually(dead)
    found = (await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}")).json()
    assert found["status"] == "pending_review"
    assert found["evaluation"] is None


@pytest.mark.requirement("AM-2.3")
async def test_answers_ratings_and_loads_are_counted_once_and_shown_in_the_chain(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    adapter = await registered(upstream, adapters, domain)
    sha256 = adapter["artifact_sha256"]
    await upstream.publish(upstream.scored(adapter, 90, evaluation_id=f"ev-{domain}"))
    await status(registry, adapter["adapter_id"], "approved")
    answer = v1.GenerationCompleted(
        generation_id=f"gen-{domain}",
        adapter_id=adapter["adapter_id"],
        domain=domain,
        artifact_sha256=sha256,
        base_model=upstream.base_name,
        prompt_tokens=10,
        completion_tokens=20,
        latency_ms=100,
        finish_reason="stop",
    )
    name = await upstream.publish(answer, id=secrets.token_hex(8))
    await upstream.publish(answer, id=name)
    await upstream.publish(answer.model_copy(update={"generation_id": "gen-2", "latency_ms": 300.0}))
    await upstream.publish(answer.model_copy(update={"generation_id": "gen-3", "finish_reason": "cancelled"}))
    rating = v1.FeedbackRecorded(
        generation_id=f"gen-{domain}", adapter_id=adapter["adapter_id"], domain=domain, rating=2, by="anna"
    )
    now = datetime.now(UTC)
    await upstream.publish(rating.model_copy(update={"rating": 5}), at=now)
    await upstream.publish(rating, at=now - timedelta(hours=1))  # her first thought, delivered late
    await upstream.publish(rating.model_copy(update={"rating": 4, "by": "ben"}), at=now)
    await upstream.publish(
        v1.AdapterLoaded(
            adapter_id=adapter["adapter_id"],
            domain=domain,
            artifact_sha256=sha256,
            replica="replica-1",
            load_ms=12,
            modules_bound=30,
            max_delta=3.5,
        )
    )

    async def counted() -> Any:
        found = (await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}")).json()
        full = found["usage"]["answers"] >= 2 and found["usage"]["cancelled"] and found["feedback"]["count"] >= 2
        return found if full and found["replicas"] else None

    found = await eventually(counted)
    assert found["description"] == "knows the tests"
    assert found["usage"] | {"first_used_at": 0, "last_used_at": 0} == {
        "answers": 2,
        "cancelled": 1,
        "prompt_tokens": 30,
        "completion_tokens": 60,
        "latency_ms": 200.0,
        "first_used_at": 0,
        "last_used_at": 0,
    }
    assert (found["feedback"]["count"], found["feedback"]["average"]) == (2, 4.5)
    assert found["replicas"][0]["modules_bound"] == 30
    chain = (await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}/provenance")).json()
    assert chain["evaluation"]["evaluation_id"] == chain["approval"]["evaluation_id"] == f"ev-{domain}"
    about = {
        chain["artifact"]["sha256"],
        chain["evaluation"]["artifact_sha256"],
        chain["approval"]["artifact_sha256"],
        chain["loaded"][0]["artifact_sha256"],
    }
    assert about == {sha256}
    assert chain["answers"]["count"] == 2
    assert chain["dataset"]["samples"] == 1
    statistics = (await registry.client.get("/v1/statistics")).json()
    (mine,) = [one for one in statistics["domains"] if one["domain"] == domain]
    assert (mine["active"], mine["answers"], mine["ratings"], mine["average_rating"]) == (1, 2, 2, 4.5)
