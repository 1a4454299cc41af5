"""Priorities, pausing and retrying on the real servers, and two workers that share one queue."""

from __future__ import annotations

import json
import secrets
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunService
from tests.integration.trainer.conftest import SHORT, Bench, eventually, pairs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOTHING = "photovoltaics"
"""A query without samples: such a job is taken up like any other and fails at once, without a training process."""


@pytest.mark.requirement("TP-1.3")
@pytest.mark.heavy  # test_training_ends.py and tests/unit/trainer/test_pausing.py resume to the same bytes, too
async def test_a_job_paused_resumed_cancelled_and_retried_gives_what_an_undisturbed_one_gives(bench: Bench) -> None:
    await bench.record(pairs(bench.domain))
    plan = {**SHORT, "epochs": 4, "checkpointSteps": 5}
    undisturbed = await bench.submit(hyperparameters=plan)
    await bench.until(undisturbed, "succeeded")

    job_id = await bench.submit(hyperparameters=plan)
    await bench.until_step(job_id, 2)
    asked = await bench.trainer.client.post(f"/v1/jobs/{job_id}/pause", json={"reason": "night"})
    assert asked.status_code == 202
    assert asked.json()["pause_requested_by"] == "admin"
    rests = await bench.until(job_id, "paused", timeout=60)
    (event,) = await eventually(lambda: bench.upstream.published(v1.TrainingPaused, job_id))
    assert (event.by, event.reason, event.step) == ("admin", "night", rests["step"])
    assert 2 <= rests["step"] < 24

    assert (await bench.trainer.client.post(f"/v1/jobs/{job_id}/resume")).status_code == 202
    await bench.until(job_id, "running")
    await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel", json={"reason": "typo"})
    await bench.until(job_id, "cancelled", timeout=60)
    assert (await bench.trainer.client.post(f"/v1/jobs/{job_id}/resume")).status_code == 409
    assert (await bench.trainer.client.post(f"/v1/jobs/{job_id}/retry")).status_code == 202
    done = await bench.until(job_id, "succeeded")

    assert (await bench.completed(job_id)).checkpoint.sha256 == (await bench.completed(undisturbed)).checkpoint.sha256
    started = (await bench.upstream.published(v1.TrainingStarted, job_id))[-1]
    assert (started.attempt, started.resumed_step) == (3, rests["step"])
    assert [one["step"] for one in await bench.metrics(job_id)] == list(range(1, 25))
    assert [(one["number"], one["outcome"], one["reason"]) for one in done["history"]] == [
        (1, "paused", "paused by admin: night"),
        (2, "cancelled", "cancelled by admin: typo"),
        (3, "succeeded", ""),
    ]
    assert all(one["worker"] and one["started_at"] < one["ended_at"] for one in done["history"])


@pytest.mark.heavy
@pytest.mark.requirement("TP-4.2")
async def test_waiting_jobs_are_taken_up_by_priority_and_within_one_by_age(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    busy = await bench.submit(hyperparameters={**SHORT, "epochs": 100})
    await bench.until(busy, "running")
    asked = {}
    for priority in (0, 9, 4, 9, 0):
        request = v1.TrainingRequested.model_validate(bench.request(query=NOTHING, priority=priority))
        job_id = await bench.upstream.publish(request)
        await bench.until(job_id, "queued")
        asked[job_id] = priority
    assert {(await bench.job(job_id))["state"] for job_id in asked} == {"queued"}

    await bench.trainer.client.post(f"/v1/jobs/{busy}/cancel")
    ended = [await bench.until(job_id, "failed", timeout=60) for job_id in asked]
    ids = list(asked)
    order = [one["job_id"] for one in sorted(ended, key=lambda one: one["started_at"])]
    assert order == [ids[1], ids[3], ids[2], ids[0], ids[4]]
    assert [one["attempts"] for one in ended] == [1] * 5
    assert all(NOTHING in one["history"][0]["reason"] for one in ended)


async def test_a_job_paused_while_it_waits_keeps_its_place_and_lets_others_go(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    busy = await bench.submit(hyperparameters={**SHORT, "epochs": 100})
    await bench.until(busy, "running")
    resting = await bench.submit(query=NOTHING, priority=5)
    waiting = await bench.submit(query=NOTHING)
    await eventually(lambda: bench.upstream.published(v1.TrainingQueued, waiting))
    assert (await bench.trainer.client.post(f"/v1/jobs/{resting}/pause")).json()["state"] == "paused"
    await bench.trainer.client.post(f"/v1/jobs/{busy}/cancel")
    await bench.until(waiting, "failed", timeout=60)
    assert (await bench.job(resting))["attempts"] == 0
    await bench.trainer.client.post(f"/v1/jobs/{resting}/resume")
    assert (await bench.until(resting, "failed", timeout=60))["attempts"] == 1


@pytest.mark.heavy
@pytest.mark.requirement("TP-4.2")
async def test_two_workers_share_the_queue_and_each_job_is_on_exactly_one(
    bench: Bench, run_service: RunService, tiny_model: Path, tmp_path: Path
) -> None:
    await bench.record(pairs(bench.domain, 4))
    same = {name: bench.trainer.env[name] for name in bench.trainer.env if name.startswith("LORAFLEET_LEASE")}
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_BASE_MODEL_NAME="tiny-llama",
        LORAFLEET_CACHE_DIR=str(tmp_path / "second"),
        LORAFLEET_THREADS="1",
        **same,
    ):
        jobs = [await bench.submit(hyperparameters={**SHORT, "epochs": 100}) for _ in range(2)]
        for job_id in jobs:
            await bench.until(job_id, "running", timeout=60)
        quick = [await bench.submit(query=NOTHING) for _ in range(6)]
        holders = [(await bench.job(job_id))["history"][-1]["worker"] for job_id in jobs]
        assert len(set(holders)) == 2, "both train at the same time, each its own job"
        for job_id in jobs:
            await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel")
        ended: list[dict[str, Any]] = [
            await bench.until(one, "failed", "cancelled", timeout=60) for one in jobs + quick
        ]
    for one in ended:
        assert one["attempts"] == 1, one
        assert [past["outcome"] for past in one["history"]] == [one["state"]]
    for job_id in quick:
        [_] = await eventually(partial(bench.upstream.published, v1.TrainingFailed, job_id))


@pytest.mark.requirement("TP-1.2")
async def test_a_request_that_cannot_succeed_is_not_retried(bench: Bench) -> None:
    bad = v1.TrainingRequested.model_validate(bench.request(hyperparameters={"rank": 128}))
    job_id = await bench.upstream.publish(bad, id=f"bad-{secrets.token_hex(4)}")
    failed = await bench.until(job_id, "failed")
    assert [(one["number"], one["outcome"]) for one in failed["history"]] == [(0, "failed")]
    answer = await bench.trainer.client.post(f"/v1/jobs/{job_id}/retry")
    assert answer.status_code == 422
    assert "at most 64" in answer.json()["detail"]
    assert (await bench.job(job_id))["state"] == "failed"


@pytest.mark.requirement("TP-1.2")
async def test_an_event_with_values_out_of_range_fails_its_job_with_everything_that_is_wrong(bench: Bench) -> None:
    body = {
        "domain": bench.domain,
        "continueFrom": "ghost-lora-v1.0.0",
        "datasetId": "0" * 64,
        "hyperparameters": {"rank": 4000, "batchSize": 9, "processes": 2, "beta": 0.3, "earlyStoppingPatience": 2},
        "aFieldOfANewerWriter": 1,
    }
    job_id = f"broken-{secrets.token_hex(4)}"
    headers = {"ce-id": job_id, "Nats-Msg-Id": job_id, "content-type": "application/json"}
    await bench.upstream.jetstream.publish(
        "lorafleet.v1.training.requested", json.dumps(body).encode(), headers=headers
    )
    failed = await bench.until(job_id, "failed", timeout=30)
    (event,) = await eventually(lambda: bench.upstream.published(v1.TrainingFailed, job_id))
    assert event.reason == failed["error"]
    for named in ("hyperparameters.rank: 4000", "processes: 2", "beta: 0.3", "continue_from", "dataset_id"):
        assert named in event.reason, event.reason
    over_http = await bench.trainer.client.post("/v1/jobs", json={**body, "domain": "NO DOMAIN"})
    fields = {one["field"].rpartition(".")[2] for one in over_http.json()["faults"]}
    assert fields >= {"rank", "processes", "beta", "domain", "aFieldOfANewerWriter"}


async def test_a_broken_event_of_a_job_that_is_known_goes_to_the_dead_letters(bench: Bench) -> None:
    await bench.record(pairs(bench.domain, 4))
    job_id = await bench.submit(query=NOTHING, jobId=f"known-{secrets.token_hex(4)}")
    body = json.dumps({"domain": bench.domain, "jobId": job_id, "hyperparameters": {"rank": 0}}).encode()
    await bench.upstream.jetstream.publish("lorafleet.v1.training.requested", body)

    async def buried() -> bool:
        return any("greater than or equal to 1" in reason for reason in await bench.upstream.dead())

    await eventually(buried, 30)
    assert NOTHING in (await bench.until(job_id, "failed"))["error"]
