"""What a domain may take, and what goes when nobody needs it: quotas, checkpoints of ended jobs, unused uploads."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET, s3_client
from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.trainer.building import as_jsonl, built, upload
from tests.integration.trainer.conftest import SHORT, Bench, eventually, pairs

pytestmark = pytest.mark.integration

ROWS = [{"prompt": f"What is gate {n}?", "completion": f"Gate {n} opens at dusk."} for n in range(8)]


@pytest.fixture(scope="module")
def trainer_settings() -> dict[str, str]:
    return {
        "LORAFLEET_LEASE_SECONDS": "4",
        "LORAFLEET_UPLOADS_PER_DOMAIN": "2",
        "LORAFLEET_UPLOAD_BYTES_PER_DOMAIN": "5000",
        "LORAFLEET_OPEN_BUILDS_PER_DOMAIN": "3",
        "LORAFLEET_OPEN_JOBS_PER_DOMAIN": "2",
        "LORAFLEET_TRAINING_HOURS_PER_MONTH": '{"*": 0.5}',
        "LORAFLEET_RESUME_HOURS": "1",
        "LORAFLEET_UPLOAD_DAYS": "30",
        "LORAFLEET_SWEEP_SECONDS": "1",
    }


@pytest.fixture
async def database(trainer: RunningService) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(
        trainer.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "trainer"}
    )
    yield connection
    await connection.close()


def objects(servers: Fleet, prefix: str) -> list[str]:
    client = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
    return [one.object_name or "" for one in client.list_objects(BUCKET, prefix, recursive=True)]


async def put(bench: Bench, content: bytes) -> Any:
    params = {"domain": bench.domain, "filename": "gates.jsonl"}
    return await bench.trainer.client.put("/v1/uploads", params=params, content=content)


async def test_uploads_of_a_domain_are_bounded_in_number_and_in_bytes(bench: Bench, servers: Fleet) -> None:
    assert (await put(bench, as_jsonl(ROWS))).status_code == 201
    large = await put(bench, as_jsonl([{"prompt": "p", "completion": "x" * 5000}]))
    assert (large.status_code, large.json()["quota"]) == (409, "LORAFLEET_UPLOAD_BYTES_PER_DOMAIN")
    assert len(objects(servers, f"trainer/uploads/{bench.domain}/")) == 1
    assert (await put(bench, as_jsonl(ROWS[:3]))).status_code == 201
    third = await put(bench, as_jsonl(ROWS[:2]))
    assert (third.status_code, third.json()["limit"]) == (409, 2)
    assert third.json()["quota"] == "LORAFLEET_UPLOADS_PER_DOMAIN"
    bench.domain += "-other"
    assert (await put(bench, as_jsonl(ROWS[:2]))).status_code == 201


async def test_two_uploads_at_once_do_not_pass_a_quota_together(bench: Bench) -> None:
    statuses = [one.status_code for one in await asyncio.gather(*(put(bench, as_jsonl(ROWS[:n])) for n in range(1, 7)))]
    assert sorted(statuses) == [201, 201, 409, 409, 409, 409]


async def test_open_builds_and_jobs_of_a_domain_are_bounded(bench: Bench, database: Any) -> None:
    await bench.record(pairs(bench.domain))
    source = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    await database.executemany(
        "insert into dataset_builds (build_id, domain, recipe, requested_by, requested_domains, state, created_at,"
        " claim_lease)"
        " values ($1, $2, '{}', '', array[$2], 'succeeded', now(), '')",
        [(f"{bench.domain}-{number}", bench.domain) for number in range(10)],
    )
    body = {"domain": bench.domain, "name": "gates", "sources": [source]}
    answers = await asyncio.gather(*(bench.trainer.client.post("/v1/datasets", json=body) for _ in range(6)))
    refused = [one.json() for one in answers if one.status_code == 429]
    assert len(refused) == 3
    assert {one["quota"] for one in refused} == {"LORAFLEET_OPEN_BUILDS_PER_DOMAIN"}

    long = {**SHORT, "maxSteps": 10_000, "epochs": 100}
    jobs = [await bench.submit(hyperparameters=long) for _ in range(2)]
    answer = await bench.trainer.client.post("/v1/jobs", json=bench.request(hyperparameters=long))
    assert (answer.status_code, answer.json()["quota"]) == (429, "LORAFLEET_OPEN_JOBS_PER_DOMAIN")
    request = v1.TrainingRequested(job_id=f"{bench.domain}-event", domain=bench.domain)
    await bench.upstream.publish(request)
    (event,) = await eventually(lambda: bench.upstream.published(v1.TrainingFailed, request.job_id))
    assert "LORAFLEET_OPEN_JOBS_PER_DOMAIN" in event.reason  # type: ignore[attr-defined]
    for job_id in jobs:
        await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel")
    for job_id in jobs:
        await bench.until(job_id, "cancelled", timeout=60)
    assert (await bench.trainer.client.post("/v1/jobs", json=bench.request())).status_code == 202


async def test_a_domain_that_has_trained_its_hours_of_the_month_gets_no_further_job(
    bench: Bench, database: Any
) -> None:
    await bench.record(pairs(bench.domain))
    job_id = await bench.submit()
    await bench.until(job_id, "succeeded", timeout=60)
    add = (
        "insert into steps (job_id, step, epoch, loss, learning_rate, gradient_norm, tokens, seconds, recorded_at)"
        " values ($1, $2, 1, 1, 1, 1, 1, 1801, date_trunc('month', now(), 'UTC') + $3::interval)"
    )
    await database.execute(add, job_id, 10_001, timedelta(seconds=-1))  # the month before
    again = await bench.submit()
    await database.execute(add, job_id, 10_002, timedelta())
    refused = await bench.trainer.client.post("/v1/jobs", json=bench.request())
    assert (refused.status_code, refused.json()["quota"]) == (429, "LORAFLEET_TRAINING_HOURS_PER_MONTH")
    assert "0.5 hours of training a month" in refused.json()["detail"]
    await bench.until(again, "succeeded", timeout=60)


@pytest.mark.heavy
async def test_checkpoints_go_when_their_job_has_ended_and_those_of_a_paused_one_stay(
    bench: Bench, servers: Fleet, database: Any
) -> None:
    await bench.record(pairs(bench.domain))

    async def left(job_id: str) -> int:
        return len(await asyncio.to_thread(objects, servers, f"trainer/resume/{job_id}/"))

    async def none_of(job_id: str) -> bool:
        return not await left(job_id)

    done = await bench.submit()
    await bench.until(done, "succeeded")
    await eventually(lambda: none_of(done), 15)
    # What an earlier version left: an object of an ended job that no record names.
    client = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
    client.put_object(BUCKET, f"trainer/resume/{done}/{'a' * 64}", io.BytesIO(b"old"), 3)
    await eventually(lambda: none_of(done), 15)

    cancelled, paused = await bench.submit(hyperparameters={**SHORT, "epochs": 50}), ""
    await bench.until_step(cancelled, 4)
    await bench.trainer.client.post(f"/v1/jobs/{cancelled}/cancel")
    await bench.until(cancelled, "cancelled", timeout=60)
    paused = await bench.submit(hyperparameters={**SHORT, "epochs": 50})
    await bench.until_step(paused, 4)
    await bench.trainer.client.post(f"/v1/jobs/{paused}/pause")
    await bench.until(paused, "paused", timeout=60)
    await asyncio.sleep(3)  # three sweeps
    assert await left(cancelled)  # a retry within the hour goes on from it
    await database.execute("update jobs set finished_at = now() - interval '61 minutes' where job_id = $1", cancelled)
    await eventually(lambda: none_of(cancelled), 15)
    assert await left(paused)
    metrics = (await bench.trainer.client.get("/metrics")).text
    assert 'lorafleet_trainer_stored_bytes{what="resume"}' in metrics
    assert bench.domain not in metrics


async def test_an_unused_upload_expires_and_data_sets_built_from_it_stay(
    bench: Bench, servers: Fleet, database: Any
) -> None:
    source = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    dataset_id, _ = await built(bench, source)
    other = await upload(bench, "others.jsonl", as_jsonl(ROWS[:3]))
    set_age = "update uploads set used_at = now() - $1::text::interval where upload_id = $2 and domain = $3"
    await database.execute(set_age, "29 days", other["upload_id"], bench.domain)
    await database.execute(set_age, "31 days", source["upload_id"], bench.domain)

    async def kept() -> list[str]:
        listed = (await bench.trainer.client.get("/v1/uploads")).json()["uploads"]
        return [one["upload_id"] for one in listed if one["domain"] == bench.domain]

    async def expired() -> bool:
        return source["upload_id"] not in await kept()

    await eventually(expired, 15)
    assert await kept() == [other["upload_id"]]
    assert len(objects(servers, f"trainer/uploads/{bench.domain}/")) == 1
    assert (await bench.trainer.client.get(f"/v1/datasets/{dataset_id}/records")).status_code == 200
