"""Workers die, jobs do not: kill -9 of service or subprocess, cancellation, restarts."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from minio import Minio

from fleet_cli.stack import Fleet
from fleet_events import v1
from tests.integration.trainer.conftest import SHORT, Bench, eventually, pairs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

LONG = {**SHORT, "epochs": 6, "checkpointSteps": 4, "keepCheckpoints": 2}
"""36 steps of about a tenth of a second: time enough to strike in the middle of an epoch."""


def training_processes(job_id: str) -> list[psutil.Process]:
    """The running subprocesses of a job: forks of their trainer's fork server, with their log in the job's folder."""
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "trainer.trainin":
            try:
                spec = Path(f"/proc/{process.pid}/fd/2").readlink().with_name("spec.json")
                if json.loads(spec.read_text())["job_id"] == job_id:
                    found.append(process)
            except OSError:
                continue  # it has just ended, and its folder with it
    return found


async def straight_through(bench: Bench) -> v1.TrainingCompleted:
    """What the job gives when nothing disturbs it."""
    job_id = await bench.submit(hyperparameters=LONG)
    await bench.until(job_id, "succeeded")
    return await bench.completed(job_id)


@pytest.mark.heavy
@pytest.mark.requirement("TP-1.3")
async def test_a_trainer_killed_mid_epoch_and_then_its_subprocess_end_in_the_very_same_adapter(bench: Bench) -> None:
    await bench.record(pairs(bench.domain))
    undisturbed = await straight_through(bench)

    job_id = await bench.submit(hyperparameters=LONG)
    await bench.until_step(job_id, 10)  # epochs end at 6 and 12, checkpoints at 8 and 12
    (orphan,) = training_processes(job_id)
    await bench.trainer.kill()
    await eventually(lambda: _gone(orphan), timeout=10)
    await bench.trainer.wait_ready()
    await eventually(lambda: _taken_up(bench, job_id, attempts=2))
    await bench.until_step(job_id, 20)
    for process in training_processes(job_id):
        os.kill(process.pid, 9)
    done = await bench.until(job_id, "succeeded")
    event = await bench.completed(job_id)

    assert (done["step"], done["attempts"]) == (36, 3)
    started = await bench.upstream.published(v1.TrainingStarted, job_id)
    assert [one.attempt for one in started] == [1, 2, 3]
    assert [one.resumed_step > 0 for one in started] == [False, True, True]
    assert [one["step"] for one in await bench.metrics(job_id)] == list(range(1, 37))
    assert event.checkpoint.sha256 == undisturbed.checkpoint.sha256
    assert event.artifact.blob.sha256 == undisturbed.artifact.blob.sha256
    assert event.dataset == undisturbed.dataset
    assert len(await bench.upstream.published(v1.TrainingCompleted, job_id)) == 1


async def _gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def _taken_up(bench: Bench, job_id: str, attempts: int) -> bool:
    return bool((await bench.job(job_id))["attempts"] >= attempts)


async def test_a_cancelled_running_job_stops_its_process_and_says_so(bench: Bench) -> None:
    await bench.record(pairs(bench.domain))
    job_id = await bench.submit(hyperparameters={**LONG, "epochs": 100})
    await bench.until_step(job_id, 1)
    (process,) = training_processes(job_id)
    answer = await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel", json={"reason": "wrong data"})
    assert answer.status_code == 202
    await bench.until(job_id, "cancelled", timeout=20)
    assert await _gone(process)
    (event,) = await eventually(lambda: bench.upstream.published(v1.TrainingCancelled, job_id))
    assert (event.by, event.reason) == ("admin", "wrong data")
    again = await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel")
    assert again.status_code == 409
    assert await bench.upstream.published(v1.TrainingCompleted, job_id) == []


@pytest.mark.heavy
async def test_a_job_cancelled_while_it_waits_never_starts(bench: Bench) -> None:
    await bench.record(pairs(bench.domain))
    first = await bench.submit(hyperparameters={**LONG, "epochs": 100})
    await bench.until_step(first, 1)
    waiting = await bench.submit()
    await bench.trainer.client.post(f"/v1/jobs/{waiting}/cancel")
    assert (await bench.job(waiting))["state"] == "cancelled"
    await bench.trainer.client.post(f"/v1/jobs/{first}/cancel")
    last = await bench.submit(hyperparameters={"maxSteps": 1})
    await bench.until(last, "succeeded")
    assert await bench.upstream.published(v1.TrainingStarted, waiting) == []
    assert len(await bench.upstream.published(v1.TrainingCancelled, waiting)) == 1


@pytest.mark.heavy
async def test_a_service_that_is_stopped_in_an_orderly_way_leaves_no_process_and_its_job_goes_on(bench: Bench) -> None:
    await bench.record(pairs(bench.domain))
    job_id = await bench.submit(hyperparameters=LONG)
    await bench.until_step(job_id, 10)
    (process,) = training_processes(job_id)
    await bench.trainer.stop()
    assert await _gone(process)
    await asyncio.sleep(0.2)
    await bench.trainer.start()
    done: dict[str, Any] = await bench.until(job_id, "succeeded")
    assert (done["step"], done["attempts"]) == (36, 2)


@pytest.mark.heavy
async def test_only_the_newest_checkpoints_are_kept(bench: Bench, servers: Fleet) -> None:
    await bench.record(pairs(bench.domain))
    job_id = await bench.submit(hyperparameters=LONG)
    most = 0
    while (await bench.job(job_id))["state"] != "succeeded":
        most = max(most, len(await asyncio.to_thread(_objects, servers, f"trainer/resume/{job_id}/")))
        await asyncio.sleep(0.1)
    assert LONG["keepCheckpoints"] <= most <= int(str(LONG["keepCheckpoints"])) + 1

    async def gone() -> bool:
        return not await asyncio.to_thread(_objects, servers, f"trainer/resume/{job_id}/")

    assert await eventually(gone, 30)
    assert "checkpoint_not_stored" not in bench.trainer.log


def _objects(servers: Fleet, prefix: str) -> list[str]:
    key = servers.credentials.s3["admin"]
    client = Minio(
        servers.info.s3_endpoint.removeprefix("http://"), access_key=key.access, secret_key=key.secret, secure=False
    )
    return [one.object_name or "" for one in client.list_objects(servers.info.s3_bucket, prefix, recursive=True)]
