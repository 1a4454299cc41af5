"""Versions carried over to another base model: trained again, converted, or by the domain's policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from fleet_events import v1
from lora_core import base_model as base
from tests.conftest import Mint, RunningService, RunService
from tests.integration.registry.conftest import Get, Upstream, eventually
from tests.integration.registry.test_loop import registered, status

pytestmark = pytest.mark.integration

NEXT = "Next"


@pytest.fixture(scope="module")
def next_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model at another revision: the same weights, another tokenizer configuration."""
    folder = tmp_path_factory.mktemp("next") / NEXT
    shutil.copytree(base_model, folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 4096}))
    return folder


@pytest.fixture(scope="module")
async def registry(run_service: RunService, base_model: Path, next_model: Path) -> AsyncIterator[RunningService]:
    settings = {
        "LORAFLEET_BASE_MODEL": str(base_model),
        "LORAFLEET_BASE_MODELS": json.dumps({NEXT: str(next_model)}),
        "LORAFLEET_FOLLOW_SECONDS": "0.3",
    }
    async with run_service("registry", **settings) as running:
        yield running


async def migrate(registry: RunningService, adapter: dict[str, Any], **body: object) -> httpx.Response:
    return await registry.client.post(
        "/v1/migrations", json={"adapter_id": adapter["adapter_id"], "to_base_model": NEXT, **body}
    )


@pytest.mark.requirement("AS-9.1")
async def test_a_migrated_version_is_trained_again_and_becomes_the_next_major_version(
    *, registry: RunningService, upstream: Upstream, adapters: Get, domain: str, next_model: Path
) -> None:
    old = await registered(upstream, adapters, domain)
    begun = await migrate(registry, old, reason="the old one is retired")
    assert begun.status_code == 202, begun.text
    migration = begun.json()
    assert (migration["strategy"], migration["state"]) == ("retrain", "training")
    again = await migrate(registry, old)
    assert (again.status_code, again.json()["field"]) == (409, "to_base_model")
    (request,) = await eventually(lambda: upstream.published(v1.TrainingRequested, domain=domain))
    assert (request.base_model, request.dataset_id) == (NEXT, f"ds-{domain}")
    assert (request.job_id, request.requested_by) == (migration["job_id"], "admin")
    assert (request.hyperparameters.rank, request.hyperparameters.learning_rate) == (4, 0.0002)

    done = await upstream.trained(domain, seed=3, job_id=request.job_id)
    target = v1.BaseModel(name=NEXT, revision=base.revision(next_model))
    await upstream.publish(done.model_copy(update={"base_model": target}))

    async def over() -> Any:
        found = (await registry.client.get(begun.headers["Location"])).json()
        return found if found["state"] == "registered" else None

    found = await eventually(over)
    assert found["new_adapter_id"] == f"{domain}-lora-v2.0.0"
    new = (await registry.client.get(f"/v1/adapters/{found['new_adapter_id']}")).json()
    assert new["base_model"] == {"name": NEXT, "revision": target.revision}
    assert new["status"] == "pending_review"  # judged as usual
    trail = (await registry.client.get(f"/v1/adapters/{old['adapter_id']}/audit")).json()["entries"]
    assert (trail[-1]["action"], trail[-1]["reason"]) == ("migration_requested", "the old one is retired")


@pytest.mark.requirement("AS-9.1")
async def test_a_version_whose_weights_fit_is_converted_at_once_by_the_domain_s_rule(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    rule = {"old": upstream.base_name, "new": NEXT, "strategy": "convert"}
    set_ = await registry.client.put(f"/v1/policies/{domain}", json={"migration_strategies": [rule]})
    assert set_.json()["migration_strategies"] == [rule]
    old = await registered(upstream, adapters, domain)
    begun = await migrate(registry, old)
    assert begun.status_code == 202, begun.text
    assert (begun.json()["strategy"], begun.json()["state"]) == ("convert", "registered")
    new = (await registry.client.get(f"/v1/adapters/{begun.json()['new_adapter_id']}")).json()
    assert (new["version"], new["base_model"]["name"], new["status"]) == ("2.0.0", NEXT, "pending_review")
    assert "/registry/checkpoints/" in new["checkpoint"]["uri"]  # its own, whatever becomes of the old version
    assert new["origin"]["source"] == f"converted from {old['adapter_id']}"
    events = await eventually(lambda: upstream.published(v1.AdapterRegistered, domain=domain))

    async def both() -> Any:
        events = await upstream.published(v1.AdapterRegistered, domain=domain)
        return events if len(events) == 2 else None

    events = await eventually(both)
    assert [one.adapter.base_model.name for one in events] == [upstream.base_name, NEXT]
    assert events[1].adapter.probe is None


@pytest.mark.requirement("AS-9.1")
async def test_a_version_that_serves_is_distilled_where_the_domain_lets_answers_become_data(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    old = await registered(upstream, adapters, domain)
    await upstream.publish(upstream.scored(old, 92))
    await status(registry, old["adapter_id"], "approved")
    refused = await migrate(registry, old, strategy="distil")
    assert (refused.status_code, "lets no answer become data" in refused.text) == (409, True)
    await registry.client.put(f"/v1/policies/{domain}", json={"record_answers": "rated"})
    begun = await migrate(registry, old, strategy="distil")
    assert (begun.status_code, begun.json()["strategy"]) == (202, "distil"), begun.text
    (request,) = await eventually(lambda: upstream.published(v1.TrainingRequested, domain=domain))
    assert (request.base_model, request.dataset_id) == (NEXT, f"ds-{domain}")
    assert (request.distil_from, request.job_id) == (old["adapter_id"], begun.json()["job_id"])


async def test_a_training_that_fails_ends_its_migration_with_the_reason_and_it_can_be_tried_again(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    old = await registered(upstream, adapters, domain)
    begun = (await migrate(registry, old)).json()
    await upstream.publish(
        v1.TrainingFailed(job_id=begun["job_id"], domain=domain, reason="base_model: not trained here")
    )

    async def failed() -> Any:
        (found,) = (await registry.client.get("/v1/migrations", params={"domain": domain})).json()["migrations"]
        return found if found["state"] == "failed" else None

    assert (await eventually(failed))["error"] == "base_model: not trained here"
    assert (await migrate(registry, old)).status_code == 202


@pytest.mark.parametrize(
    ("changes", "status_code", "field"),
    [
        ({"to_base_model": "nobody-knows"}, 422, "to_base_model"),
        ({"strategy": "guess"}, 422, "strategy"),
        ({"strategy": "distil"}, 409, "strategy"),  # it does not serve
        ({"adapter_id": "nobody-lora-v1.0.0"}, 404, "adapter_id"),
    ],
)
async def test_a_migration_that_cannot_be_is_refused(
    *,
    registry: RunningService,
    upstream: Upstream,
    adapters: Get,
    domain: str,
    changes: dict[str, str],
    status_code: int,
    field: str,
) -> None:
    old = await registered(upstream, adapters, domain)
    refused = await migrate(registry, old, **changes)
    assert (refused.status_code, refused.json()["field"]) == (status_code, field)


async def test_a_migration_takes_the_right_to_train_and_another_domain_s_reads_like_none(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str, mint: Mint
) -> None:
    old = await registered(upstream, adapters, domain)
    theirs = (await migrate(registry, old, strategy="convert")).json()["migration_id"]
    for scopes, domains, expected in (
        (["adapters:read", "adapters:write"], [domain], (403, 200)),
        (["adapters:read", "adapters:write", "train"], [f"{domain}z"], (404, 404)),
    ):
        headers = {"Authorization": f"Bearer {mint(scopes, domains)}"}
        async with httpx.AsyncClient(base_url=registry.url, headers=headers, timeout=30) as client:
            body = {"adapter_id": old["adapter_id"], "to_base_model": NEXT}
            begun = await client.post("/v1/migrations", json=body)
            shown = await client.get(f"/v1/migrations/{theirs}")
            assert (begun.status_code, shown.status_code) == expected


@pytest.mark.requirement("AS-9.1")
async def test_an_active_version_follows_its_base_model_to_a_new_revision_once_where_the_policy_has_it_so(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    old = await outdated(registry, upstream, adapters, domain)
    assert await upstream.published(v1.TrainingRequested, domain=domain) == []
    await registry.client.put(f"/v1/policies/{domain}", json={"follow_base_model": True})
    (request,) = await eventually(lambda: upstream.published(v1.TrainingRequested, domain=domain))
    assert (request.base_model, request.requested_by) == (upstream.base_name, "automated-pipeline")
    assert request.triggers == (v1.RetrainingTrigger.NEW_BASE_MODEL,)
    assert request.reason == f"{upstream.base_name} has a new revision"
    await upstream.publish(v1.TrainingFailed(job_id=request.job_id, domain=domain, reason="no memory"))

    async def failed() -> Any:
        (found,) = (await registry.client.get("/v1/migrations", params={"domain": domain})).json()["migrations"]
        return found["adapter_id"] == old["adapter_id"] and found["state"] == "failed"

    await eventually(failed)
    # Another family shows that the loop has come round; what failed is not tried again by itself.
    await outdated(registry, upstream, adapters, f"{domain}x")
    await registry.client.put(f"/v1/policies/{domain}x", json={"follow_base_model": True})
    await eventually(lambda: upstream.published(v1.TrainingRequested, domain=f"{domain}x"))
    assert len(await upstream.published(v1.TrainingRequested, domain=domain)) == 1


async def outdated(registry: RunningService, upstream: Upstream, adapters: Get, domain: str) -> dict[str, Any]:
    """An active version of a domain, trained for the base model's revision before this one."""
    adapter = await registered(upstream, adapters, domain)
    await upstream.publish(upstream.scored(adapter, 92))
    await status(registry, adapter["adapter_id"], "approved")
    connection = await asyncpg.connect(
        registry.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "registry"}
    )
    try:
        await connection.execute(
            "update adapter set base_model_revision = $2, made_of = jsonb_set(made_of, '{base_model,revision}', $3)"
            " where adapter_id = $1",
            adapter["adapter_id"],
            "e" * 64,
            json.dumps("e" * 64),
        )
    finally:
        await connection.close()
    return adapter
