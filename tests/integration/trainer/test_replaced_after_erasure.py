"""From a person's request to be forgotten to an adapter that never saw them: trainer and registry, all real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService, RunService
from tests.integration.registry.conftest import UNJUDGED, permit_unjudged
from tests.integration.trainer.building import as_jsonl, built, upload
from tests.integration.trainer.conftest import Bench, eventually, pairs

pytestmark = [pytest.mark.integration, pytest.mark.heavy, pytest.mark.timeout(300)]

QUICK = {"rank": 4, "maxSteps": 2, "batchSize": 4}


@pytest.fixture(scope="module")
async def registry(run_service: RunService, tiny_model: Path) -> AsyncIterator[RunningService]:
    settings = {"LORAFLEET_BASE_MODEL": str(tiny_model), "LORAFLEET_BASE_MODEL_NAME": "tiny-llama"}
    async with run_service("registry", **settings) as running:
        yield running


@pytest.fixture(scope="module")
def trainer_settings() -> dict[str, str]:
    return {"LORAFLEET_RETRAINING_SECONDS": "0.3"}


@pytest.mark.requirement("LA-1.7")
async def test_a_version_that_learned_from_a_forgotten_person_is_replaced_by_one_trained_without_them(
    bench: Bench, registry: RunningService
) -> None:
    domain, client = bench.domain, registry.client
    await permit_unjudged(registry, domain)

    async def version(adapter_id: str) -> Any:
        found = await client.get(f"/v1/adapters/{adapter_id}")
        return found.json() if found.status_code == 200 else None

    async def approve(adapter_id: str) -> None:
        await eventually(lambda: version(adapter_id), 60)
        approved = await client.post(f"/v1/adapters/{adapter_id}/approve", json=UNJUDGED)
        assert approved.json()["active"], approved.text

    lines = [{"prompt": one["prompt"], "completion": one["completion"]} for one in pairs(domain, 8)]
    for line in lines[:2]:
        line["subject"] = "anna"
    held, records = await built(bench, await upload(bench, "gates.jsonl", as_jsonl(lines)))
    body = {"domain": domain, "dataset_id": held, "hyperparameters": QUICK}
    first_job = (await bench.trainer.client.post("/v1/jobs", json=body)).json()["job_id"]
    await bench.until(first_job, "succeeded")
    first, second = f"{domain}-lora-v1.0.0", f"{domain}-lora-v1.0.1"
    await approve(first)
    rules = {"training": {"hyperparameters": QUICK}, "cooldown_hours": 0}
    assert (await bench.trainer.client.put(f"/v1/retraining/{domain}", json=rules)).status_code == 200

    forget = {"subject": "anna", "domain": domain, "adapters": "replace"}
    asked = await bench.trainer.client.post("/v1/erasures", json=forget)
    assert asked.status_code == 202, asked.text

    async def erased() -> Any:  # by these two; no router runs here
        found = (await bench.trainer.client.get(f"/v1/erasures/{asked.json()['erasure_id']}")).json()
        states = {one["service"]: one["state"] for one in found["services"]}
        return found if states["trainer"] == states.get("registry") == "erased" else None

    proof = await eventually(erased, 60)
    assert (proof["datasets"], proof["adapters"]) == ([held], [first])
    assert (await version(first))["learned_from_erased"] == [proof["erasure_id"]]
    assert (await version(first))["active"], "it serves until the other one does"

    async def retrained() -> Any:
        firings = (await bench.trainer.client.get(f"/v1/retraining/{domain}/firings")).json()["firings"]
        return firings[0] if firings and firings[0]["state"] == "succeeded" else None

    fired = await eventually(retrained, 120)
    (requested,) = await bench.upstream.published(v1.TrainingRequested, fired["job_id"])
    assert requested.reason == f"{first} learned from records that erasure {proof['erasure_id']} deleted"
    job = (await bench.trainer.client.get(f"/v1/jobs/{fired['job_id']}")).json()
    left = (await bench.trainer.client.get(f"/v1/datasets/{job['dataset']}")).json()
    assert (left["name"], left["version"], left["samples"]) == (
        "gates",
        2,
        len([one for one in records if not one.subjects]),
    )
    await approve(second)
    new, old = await version(second), await version(first)
    assert (new["active"], new["learned_from_erased"]) == (True, [])
    assert (old["status"], old["active"]) == ("rejected", False)
    assert new["training"]["dataset"]["dataset_id"] == job["dataset"]
