"""A version moves to another base model by its own answers: registry, inference and trainer, all real."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_kit.blobs import Blobs
from lora_core import base_model as base
from tests.conftest import Mint, RunningService, RunService
from tests.integration.registry.conftest import UNJUDGED, permit_unjudged
from tests.integration.registry.conftest import Upstream as Trained
from tests.integration.trainer.building import as_jsonl, built, card_of, upload
from tests.integration.trainer.conftest import Bench, eventually

pytestmark = [pytest.mark.integration, pytest.mark.heavy, pytest.mark.timeout(300)]

OLD = "SmolLM2-135M-Instruct"
COUNTRIES = ("France", "Italy", "Japan", "Austria")


@pytest.fixture(scope="module")
async def registry(run_service: RunService, base_model: Path, tiny_model: Path) -> AsyncIterator[RunningService]:
    models = json.dumps({"tiny-llama": str(tiny_model)})
    settings = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_BASE_MODEL_NAME": OLD}
    async with run_service("registry", LORAFLEET_BASE_MODELS=models, **settings) as running:
        yield running


@pytest.fixture(scope="module")
async def inference(
    run_service: RunService, base_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    cache = str(tmp_path_factory.mktemp("inference"))
    settings = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_BASE_MODEL_NAME": OLD}
    async with run_service("inference", LORAFLEET_CACHE_DIR=cache, **settings) as running:
        yield running


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService,
    inference: RunningService,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mint: Mint,
) -> AsyncIterator[RunningService]:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(mint(scopes=["generate"], domains=["*"]))
    named = {"url": f"{inference.url}/v1", "model": OLD, "token_file": str(token)}
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_BASE_MODEL_NAME="tiny-llama",
        LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("trainer")),
        LORAFLEET_THREADS="1",
        LORAFLEET_GENERATION_ENDPOINTS=json.dumps({"inference": named}),
    ) as running:
        yield running


@pytest.mark.requirement("AS-9.1")
async def test_an_old_versions_answers_become_a_data_set_and_a_version_of_the_new_base_model_is_trained_on_them(
    *,
    bench: Bench,
    registry: RunningService,
    inference: RunningService,
    base_model: Path,
    tiny_model: Path,
    jetstream: JetStreamContext,
    tmp_path: Path,
) -> None:
    domain, client = bench.domain, registry.client
    rows = [{"prompt": f"What is the capital of {one}?", "completion": "It is known."} for one in COUNTRIES]
    dataset_id, _ = await built(bench, await upload(bench, "capitals.jsonl", as_jsonl(rows)))
    found = (await bench.trainer.client.get(f"/v1/datasets/{dataset_id}")).json()
    blobs: Blobs = bench.blobs
    hand = Trained(jetstream, blobs, base.linear_shapes(base_model), base.revision(base_model), tmp_path, OLD)
    # Next to nothing is added to the base model, which answers in words and comes to an end.
    made = await hand.trained(domain, scale=1e-4)
    learned = made.dataset.model_copy(update={"dataset_id": dataset_id, "samples": 4, "kind": found["kind"]})
    await hand.publish(made.model_copy(update={"dataset": learned}))
    old = f"{domain}-lora-v1.0.0"

    async def registered() -> bool:
        return (await client.get(f"/v1/adapters/{old}")).status_code == 200

    await eventually(registered, 60)
    await permit_unjudged(registry, domain, record_answers="all")
    assert (await client.post(f"/v1/adapters/{old}/approve", json=UNJUDGED)).json()["active"]

    async def served() -> bool:
        return (await inference.client.get(f"/v1/models/{old}")).status_code == 200

    await eventually(served, 60)
    body = {"adapter_id": old, "to_base_model": "tiny-llama", "strategy": "distil"}
    begun = await client.post("/v1/migrations", json=body)
    assert begun.status_code == 202, begun.text

    async def moved() -> Any:
        migration = (await client.get(begun.headers["Location"])).json()
        assert migration["state"] != "failed", migration
        return migration if migration["state"] == "registered" else None

    migration = await eventually(moved, 150)
    new = (await client.get(f"/v1/adapters/{migration['new_adapter_id']}")).json()
    assert new["base_model"] == {"name": "tiny-llama", "revision": base.revision(tiny_model)}
    (requested,) = await bench.upstream.published(v1.TrainingRequested, migration["job_id"])
    assert (requested.distil_from, requested.dataset_id) == (old, dataset_id)
    job = (await bench.trainer.client.get(f"/v1/jobs/{migration['job_id']}")).json()
    assert job["dataset"] != dataset_id
    card = await card_of(bench, job["dataset"])
    assert card["origins"] == {f"distilled from {old}": card["samples"]}
    assert card["samples"] > 0
    assert new["training"]["dataset"]["dataset_id"] == job["dataset"]

    # Inference has another base model from now on: nobody can ask the old version any more.
    await inference.crash()
    process = inference.single.process
    other = {"LORAFLEET_BASE_MODEL": str(tiny_model), "LORAFLEET_BASE_MODEL_NAME": "tiny-llama"}
    process.command = replace(process.command, environment={**process.command.environment, **other})
    await inference.start()
    job_body = {"domain": domain, "dataset_id": dataset_id, "distil_from": old}
    refused = await bench.trainer.client.post("/v1/jobs", json=job_body)
    assert refused.status_code == 422, refused.text
    (fault,) = refused.json()["faults"]
    assert (fault["field"], fault["value"]) == ("distil_from", old)
    event = v1.TrainingRequested(job_id=f"late-{domain}", **job_body)
    await bench.upstream.publish(event)
    failed = await bench.until(event.job_id, "failed")
    assert "a version that inference serves, on a base model and revision that it hosts" in failed["error"]
    assert failed["attempts"] == 0, "it was refused when it was requested"
