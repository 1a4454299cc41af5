"""A job's way from samples to TrainingCompleted on the real servers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from fleet_events import v1
from lora_core import LoRAFormat
from lora_core.interop import from_peft
from lora_core.routing_profile import RoutingProfile
from services.trainer.datasets.dataset_file import dataset_id_of
from services.trainer.datasets.records import Kind
from tests.integration.trainer.conftest import SHORT, Bench, eventually, pairs

pytestmark = pytest.mark.integration


@pytest.mark.requirement("TP-4.2")
@pytest.mark.requirement("TP-5.2")
async def test_a_job_submitted_over_http_is_queued_trained_and_completed_with_its_chain_of_digests(
    bench: Bench, tiny_model: Path, tmp_path: Path
) -> None:
    await bench.record(pairs(bench.domain))
    job_id = await bench.submit(description="opens gates", goldenDatasetId="gates-v1", bump="minor")
    assert (await bench.job(job_id))["state"] in ("queued", "running")
    done = await bench.until(job_id, "succeeded")
    event = await bench.completed(job_id)

    assert (done["step"], done["total_steps"], done["attempts"]) == (12, 12, 1)
    data = await bench.records(event.dataset)
    assert event.dataset.dataset_id == dataset_id_of(bench.domain, Kind.COMPLETION, data) == done["dataset"]
    assert {record.prompt_text for record in data} == {p["prompt"] for p in pairs(bench.domain)}
    card = json.loads(await bench.blobs.get(event.dataset.card))
    assert (card["dataset_id"], card["samples"], card["kind"]) == (done["dataset"], 24, event.dataset.kind)
    assert hashlib.sha256(event.configuration.encode()).hexdigest() == event.configuration_sha256
    assert json.loads(event.configuration)["learning_rate"] == SHORT["learningRate"]
    assert event.base_model.name == "tiny-llama"

    peft = tmp_path / "peft"
    await bench.blobs.fetch(event.checkpoint, peft / "adapter_model.safetensors")
    await bench.blobs.fetch(event.checkpoint_config, peft / "adapter_config.json")
    artifact = await bench.blobs.fetch(event.artifact.blob, tmp_path / "artifact.arrow")
    served, trained = LoRAFormat.load(artifact), from_peft(peft)
    assert served.rank == event.artifact.rank == SHORT["rank"]
    assert set(served.weights) == set(trained.weights)
    assert all((served.weights[name].b == trained.weights[name].b).all() for name in served.weights)
    assert all(
        weights.any() for name, weights in load_file(peft / "adapter_model.safetensors").items() if "lora_B" in name
    )
    assert str(tiny_model) not in (peft / "adapter_config.json").read_text()
    assert event.probe is not None
    assert event.probe.max_delta > 0

    report = json.loads(await bench.blobs.get(event.report))
    assert (await bench.trainer.client.get(f"/v1/jobs/{job_id}/report")).json() == report
    assert report["results"]["final_loss"] == report["curve"][-1]["loss"]
    assert report["results"]["steps"] == 12
    assert report["results"]["seconds"] > 0
    assert report["configuration"]["rank"] == SHORT["rank"]
    assert report["curve"][-1]["loss"] < report["curve"][0]["loss"]
    assert (event.golden_dataset_id, event.bump, event.description) == ("gates-v1", "minor", "opens gates")
    assert event.example_prompts
    assert event.routing is not None
    assert event.routing.prompts == 24
    assert event.routing.embedded_by.startswith("model@")
    profile = RoutingProfile.load(await bench.blobs.fetch(event.routing.blob, tmp_path / "routing.safetensors"))
    assert int(profile.counts.sum()) + len(profile.held_out) == 24
    assert b"gate" not in (tmp_path / "routing.safetensors").read_bytes()
    assert event.requested_by == "admin"


@pytest.mark.requirement("TP-3.1")
async def test_steps_can_be_read_and_progress_is_published_while_training_runs(bench: Bench) -> None:
    await bench.record(pairs(bench.domain))
    job_id = await bench.submit(hyperparameters={**SHORT, "epochs": 8})
    await bench.until_step(job_id, 2)
    running = await bench.job(job_id)
    logged = await bench.metrics(job_id)
    assert running["state"] == "running"
    assert running["total_steps"] == 48
    assert 0 < len(logged) < 48
    assert all(one["loss"] > 0 and one["gradient_norm"] > 0 and one["tokens_per_second"] > 0 for one in logged)
    await bench.until(job_id, "succeeded")
    assert [one["step"] for one in await bench.metrics(job_id)] == list(range(1, 49))
    later = (await bench.trainer.client.get(f"/v1/jobs/{job_id}/metrics", params={"after": 40})).json()["metrics"]
    assert [one["step"] for one in later] == list(range(41, 49))
    progressed = await bench.upstream.published(v1.TrainingProgressed, job_id)
    assert 0 < len(progressed) < 48
    assert [one.step for one in progressed] == sorted(one.step for one in progressed)


@pytest.mark.heavy
async def test_a_request_delivered_three_times_under_its_id_trains_once(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 8))
    request = v1.TrainingRequested.model_validate(bench.request())
    job_id = await bench.upstream.publish(request)
    for _ in range(2):
        await bench.upstream.publish(request, id=job_id)
    await bench.until(job_id, "succeeded")
    marker = await bench.submit(jobId=f"after-{job_id}")
    await bench.until(marker, "succeeded")
    assert len(await bench.upstream.published(v1.TrainingCompleted, job_id)) == 1
    assert len(await bench.upstream.published(v1.TrainingStarted, job_id)) == 1


@pytest.mark.heavy
async def test_samples_published_right_before_a_request_are_all_trained_on(bench: Bench) -> None:
    for line in pairs(bench.domain, 60):
        await bench.upstream.publish(v1.SampleRecorded.model_validate(line))
    job_id = await bench.upstream.publish(
        v1.TrainingRequested.model_validate(bench.request(hyperparameters={"maxSteps": 1}))
    )
    await bench.until(job_id, "succeeded")
    assert (await bench.completed(job_id)).dataset.samples == 60


@pytest.mark.requirement("TP-1.2")
async def test_a_bad_request_over_http_is_told_all_its_faults_at_once(bench: Bench) -> None:
    bad = {"rank": 128, "learningRate": 7, "batchSize": 0, "targetModules": ["q_proj", "ghost_proj"]}
    answer = await bench.trainer.client.post(
        "/v1/jobs", json=bench.request(hyperparameters=bad, method="ia3", baseModel="other", bump="huge")
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    faults = {fault["field"].rpartition(".")[2]: fault["expected"] for fault in answer.json()["faults"]}
    assert set(faults) == {"learningRate", "batchSize", "bump", "target_modules", "rank", "method", "base_model"}
    assert "0.1" in faults["learningRate"]
    assert "at most 64" in faults["rank"]
    assert (await bench.trainer.client.get("/v1/jobs")).json()["jobs"] == [] or all(
        job["domain"] != bench.domain for job in (await bench.trainer.client.get("/v1/jobs")).json()["jobs"]
    )


@pytest.mark.requirement("TP-1.2")
async def test_a_bad_request_by_event_fails_with_all_its_faults(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    bad = v1.TrainingRequested.model_validate(
        bench.request(hyperparameters={"rank": 128, "targetModules": ["ghost_proj", "q_proj"]})
    )
    job_id = await bench.upstream.publish(bad)
    failed = await bench.until(job_id, "failed")
    (event,) = await bench.upstream.published(v1.TrainingFailed, job_id)
    assert event.reason == failed["error"]
    for named in ("rank", "at most 64", "ghost_proj"):
        assert named in event.reason


async def test_a_request_without_matching_samples_fails_and_says_what_there_is(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    job_id = await bench.submit(query="photovoltaics")
    failed = await bench.until(job_id, "failed")
    assert "photovoltaics" in failed["error"]
    assert "4 samples" in failed["error"]


async def test_a_job_with_too_many_over_long_samples_fails_with_the_bound(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    refused = await bench.submit(hyperparameters={**SHORT, "maxLength": 32})
    assert "max_length" in (await bench.until(refused, "failed"))["error"]


async def test_a_job_id_of_another_request_is_refused_over_http_and_dead_lettered_by_event(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    job_id = await bench.submit(jobId=f"job-{bench.domain}", hyperparameters={"maxSteps": 1})
    again = await bench.trainer.client.post(
        "/v1/jobs", json=bench.request(jobId=job_id, hyperparameters={"maxSteps": 1})
    )
    assert again.status_code == 202
    other = await bench.trainer.client.post("/v1/jobs", json=bench.request(jobId=job_id, query="gate"))
    assert other.status_code == 409
    await bench.upstream.publish(v1.TrainingRequested.model_validate(bench.request(jobId=job_id, query="lantern")))
    await eventually(lambda: _says(bench, job_id))
    assert (await bench.job(job_id))["state"] != "failed"
    await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel")


async def _says(bench: Bench, job_id: str) -> Any:
    return [reason for reason in await bench.upstream.dead() if job_id in reason and "another request" in reason]
