"""Samples in, data sets out: deduplication, full-text selection, tenancy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from fleet_events import v1
from services.trainer.datasets.records import Record
from tests.integration.trainer.conftest import Bench, eventually

pytestmark = pytest.mark.integration

ONE_STEP = {"maxSteps": 1, "batchSize": 1, "rank": 1}


async def trained_prompts(bench: Bench, **request: Any) -> tuple[str, set[str]]:
    """Data set id and prompts of what such a request is trained on. Its job ends as soon as that is settled."""
    job_id = await bench.submit(hyperparameters=ONE_STEP, **request)

    async def settled() -> Any:
        job = await bench.job(job_id)
        assert job["state"] in ("queued", "running", "succeeded"), job
        return job["dataset"]

    dataset_id = await eventually(settled)
    await bench.trainer.client.post(f"/v1/jobs/{job_id}/cancel")
    listed = await bench.trainer.client.get(f"/v1/datasets/{dataset_id}/records")
    records = [Record.of_values(json.loads(one)) for one in listed.text.splitlines()]
    return dataset_id, {record.prompt_text for record in records}


def line(prompt: str, completion: str = "yes", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


async def post(bench: Bench, lines: list[dict[str, Any]], domain: str | None = None) -> httpx.Response:
    body = "".join(json.dumps(one) + "\n" for one in lines)
    return await bench.trainer.client.post("/v1/samples", params={"domain": domain or bench.domain}, content=body)


@pytest.mark.requirement("TP-1.1")
async def test_a_query_and_a_rating_floor_select_what_is_trained_on(bench: Bench) -> None:
    recorded = [
        line("Solar roof on a listed house?", "Photovoltaik needs a permit in the Baurecht.", rating=5),
        line("Solar roof on a barn?", "Photovoltaik on barns is free by the Baurecht."),
        line("Solar roof, badly answered?", "Photovoltaik and Baurecht, who knows.", rating=1),
        line("Photovoltaik alone?", "Sells power."),
        line("Garden shed?", "The Baurecht is silent.", rating=5),
    ]
    assert (await post(bench, recorded)).json() == {"received": 5, "added": 5, "duplicates": 0, "forgotten": 0}
    dataset_id, prompts = await trained_prompts(bench, query="Photovoltaik Baurecht", minRating=4)
    assert prompts == {"Solar roof on a listed house?", "Solar roof on a barn?"}  # unrated counts as fit

    listed = (await bench.trainer.client.get("/v1/datasets")).json()["datasets"]
    (found,) = [one for one in listed if one["dataset_id"] == dataset_id]
    assert (found["query"], found["min_rating"], found["samples"]) == ("Photovoltaik Baurecht", 4, 2)

    # The same set by name, although the store has grown meanwhile.
    await post(bench, [line("Solar roof on a church?", "Photovoltaik, Baurecht.", rating=5)])
    assert await trained_prompts(bench, datasetId=dataset_id) == (dataset_id, prompts)


async def test_the_same_pair_is_one_sample_however_it_arrives(bench: Bench) -> None:
    assert (await post(bench, [line("a"), line("b"), line("a")])).json() == {
        "received": 3,
        "added": 2,
        "duplicates": 1,
        "forgotten": 0,
    }
    assert (await post(bench, [line("b"), line("c")])).json() == {
        "received": 2,
        "added": 1,
        "duplicates": 1,
        "forgotten": 0,
    }
    await bench.upstream.publish(v1.SampleRecorded(domain=bench.domain, prompt="a", completion="yes"))
    await bench.upstream.publish(v1.SampleRecorded(domain=bench.domain, prompt="d", completion="yes"))
    assert (await trained_prompts(bench))[1] == {"a", "b", "c", "d"}


async def test_an_upload_with_a_bad_line_records_nothing(bench: Bench) -> None:
    lines = [line(f"p{index}") for index in range(1200)]  # more than one batch
    refused = await post(bench, [*lines, line("", "empty prompt")])
    assert refused.status_code == 422
    assert refused.json()["faults"][0]["line"] == 1201
    assert (await post(bench, [line("p0")])).json()["added"] == 1


async def test_the_newest_rating_counts(bench: Bench) -> None:
    await post(bench, [line("a", rating=1), line("b", rating=5)])
    await post(bench, [line("a", rating=5), line("b", rating=2), line("b")])
    assert (await trained_prompts(bench, minRating=4))[1] == {"a"}


async def test_a_sample_that_cannot_be_stored_is_a_dead_letter_and_blocks_no_other(bench: Bench) -> None:
    await bench.upstream.publish(v1.SampleRecorded(domain=bench.domain, prompt="nul\x00", completion="yes"))
    await bench.upstream.publish(v1.SampleRecorded(domain=bench.domain, prompt="fine", completion="yes"))

    async def dead() -> Any:
        return [reason for reason in await bench.upstream.dead() if "NUL" in reason]

    assert await eventually(dead, timeout=20)
    assert (await trained_prompts(bench))[1] == {"fine"}


async def test_a_token_reaches_its_own_domains_alone(bench: Bench, mint: Callable[..., str]) -> None:
    await post(bench, [line("secret")])
    job_id = await bench.submit(hyperparameters=ONE_STEP)
    await bench.until(job_id, "succeeded")
    dataset_id = (await bench.completed(job_id)).dataset.dataset_id
    async with httpx.AsyncClient(
        base_url=bench.trainer.url, headers={"Authorization": f"Bearer {mint(['train'], ['elsewhere'])}"}
    ) as stranger:
        for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/metrics", f"/v1/jobs/{job_id}/report"):
            assert (await stranger.get(path)).status_code == 404
        assert (await stranger.get(f"/v1/datasets/{dataset_id}")).status_code == 404
        assert (await stranger.post(f"/v1/jobs/{job_id}/cancel")).status_code == 404
        assert (await stranger.get("/v1/jobs")).json() == {"jobs": []}
        assert (await stranger.get("/v1/datasets")).json() == {"datasets": []}
        assert (await stranger.post("/v1/jobs", json=bench.request())).status_code == 403
        body = json.dumps(line("p", domain=bench.domain))
        assert (await stranger.post("/v1/samples", content=body)).status_code == 403
        other = {"domain": "elsewhere", "datasetId": dataset_id}
        assert (await stranger.post("/v1/jobs", json=other)).status_code == 422
    async with httpx.AsyncClient(
        base_url=bench.trainer.url, headers={"Authorization": f"Bearer {mint(['generate'])}"}
    ) as other_scope:
        assert (await other_scope.get("/v1/jobs")).status_code == 403
    async with httpx.AsyncClient(base_url=bench.trainer.url) as nobody:
        assert (await nobody.get("/v1/jobs")).status_code == 401


async def test_uploads_that_never_end_hold_no_database_connection(bench: Bench) -> None:
    ends, under_way = asyncio.Event(), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal under_way
        yield json.dumps(line("first of many")).encode() + b"\n"
        under_way += 1
        await ends.wait()

    async def all_under_way() -> bool:
        return under_way == len(held)

    client = bench.trainer.client
    query = {"domain": bench.domain}
    # More than the service has connections (10).
    held = [asyncio.create_task(client.post("/v1/samples", params=query, content=endless())) for _ in range(15)]
    try:
        await eventually(all_under_way)
        async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers, timeout=4) as other:
            assert (await other.get("/v1/jobs")).status_code == 200
    finally:
        ends.set()
        answers = await asyncio.gather(*held)
    assert {answer.status_code for answer in answers} == {201}
    assert sum(answer.json()["added"] for answer in answers) == 1
