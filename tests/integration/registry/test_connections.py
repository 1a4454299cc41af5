"""No handler and no request of the registry needs a second database connection while it holds one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet_events import Event, v1
from fleet_events.topology import consumers_of, durable_name
from services.registry.handlers import handlers
from tests.conftest import RunningService, RunService
from tests.integration.registry.conftest import UNJUDGED, Get, Upstream, eventually, permit_unjudged
from tests.integration.registry.uploads import files_of, upload

pytestmark = pytest.mark.integration

POOL = 2
"""The relay of the outbox holds one connection for good: handlers and requests share the other one."""


@pytest.fixture(scope="module")
async def registry(run_service: RunService, base_model: Path) -> AsyncIterator[RunningService]:
    settings = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_DATABASE_POOL": str(POOL)}
    async with run_service("registry", **settings) as running:
        yield running


async def test_every_event_is_handled_with_a_single_connection(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    trained = await upstream.trained(domain)
    refused = await upstream.trained(domain, configuration_sha256="0" * 64)
    await upstream.publish(trained)
    (adapter,) = await eventually(lambda: adapters(domain))
    name, sha256 = adapter["adapter_id"], adapter["artifact_sha256"]
    about = {"adapter_id": name, "domain": domain}
    generation = f"gen-{secrets.token_hex(8)}"
    events: list[Event] = [
        refused,
        v1.EvaluationFailed(**about, evaluation_id="ev-none", golden_dataset_id="none", reason="no samples"),
        upstream.scored(adapter, 80),
        v1.GenerationCompleted(
            **about, generation_id=generation, artifact_sha256=sha256, base_model=upstream.base_name
        ),
        v1.FeedbackRecorded(**about, generation_id=generation, rating=4, by="anna"),
        v1.AdapterLoaded(**about, artifact_sha256=sha256, replica="replica-1"),
        v1.AdapterUnloaded(**about, artifact_sha256=sha256, replica="replica-1"),
        # No rollout of this id is known: it is refused.
        v1.GenerationFailed(
            **about,
            generation_id="gen-none",
            failure="fault",
            rollout=v1.RolloutPart(rollout_id="rollout-none", arm="candidate"),
        ),
        v1.TrainingFailed(job_id="job-none", domain=domain, reason="no data"),
        v1.TrainingCancelled(job_id="job-none", domain=domain, by="anna"),
        v1.SubjectForgotten(
            erasure_id="erasure-none",
            domain=domain,
            subject_digest="0" * 64,
            part=1,
            parts=1,
            by="anna",
            adapter_ids=(name,),
        ),
        v1.AnswerJudged(
            generation_id=generation,
            **about,
            rollout=v1.RolloutPart(rollout_id="rollout-none", arm="candidate"),
        ),
        v1.ApiKeysUsed(uses=(v1.ApiKeyUse(key_id="0" * 16, used_at=datetime.now(UTC)),)),
    ]
    assert {type(event) for event in events} == set(handlers.bindings), "each handler has an event in this test"

    async def all_answered() -> bool:
        infos = [
            await upstream.jetstream.consumer_info(row.stream.name, durable_name(consumer, row))
            for row, consumer in consumers_of("registry")
        ]
        return not any(info.num_pending or info.num_ack_pending for info in infos)

    for event in events:  # one after the other: what was scored no longer waits for its failed evaluation
        await upstream.publish(event)
        await eventually(all_answered)
    found = (await registry.client.get(f"/v1/adapters/{name}")).json()
    assert found["evaluation"]["score"] == 80
    assert (found["usage"]["answers"], found["feedback"]["count"], len(found["replicas"])) == (1, 1, 1)
    audit = (await registry.client.get(f"/v1/adapters/{name}/audit")).json()["entries"]
    actions = ["registered", "review_requested", "review_requested", "learned_from_erased"]
    assert [entry["action"] for entry in audit] == actions
    assert (found["learned_from_erased"], found["status"]) == (["erasure-none"], "pending_review")
    refusals = (await registry.client.get("/v1/refusals", params={"domain": domain})).json()["refusals"]
    assert [(one["job_id"], one["field"]) for one in refusals] == [(refused.job_id, "configuration_sha256")]


async def test_uploads_imports_and_decisions_each_take_a_single_connection(
    registry: RunningService,
    peft: Path,
    domain: str,
) -> None:
    first = await upload(registry.client, peft, domain=domain, version="1.0.0")
    assert first.status_code == 201, first.text
    again = await upload(registry.client, peft, domain=domain, version="1.0.0")
    assert (again.status_code, again.json()["next_version"]) == (409, "1.0.1"), again.text
    imported = await registry.client.post("/v1/adapters/import", data={"domain": domain}, files=files_of(peft))
    assert imported.status_code == 201, imported.text
    name = first.json()["adapter_id"]
    await permit_unjudged(registry, domain)
    for step, body in {"approve": UNJUDGED, "deactivate": {}, "activate": {}, "reject": {}}.items():
        answer = await registry.client.post(f"/v1/adapters/{name}/{step}", json=body)
        assert answer.status_code in (200, 202), answer.text
    for path in (f"adapters/{name}/provenance", f"adapters/{name}/audit", f"policies/{domain}", "statistics"):
        answer = await registry.client.get(f"/v1/{path}")
        assert answer.status_code == 200, answer.text


async def test_many_requests_at_once_wait_for_the_single_connection(registry: RunningService, domain: str) -> None:
    answers: list[Any] = await asyncio.gather(
        *(registry.client.put(f"/v1/policies/{domain}", json={"approve_at": 80 + at}) for at in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
