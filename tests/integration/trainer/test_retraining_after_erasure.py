"""Adapters that learned from erased records are trained again without them, on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fleet_events import v1
from services.trainer.runs.erasure import learned_store
from tests.conftest import RunningService, RunService
from tests.integration.trainer.building import as_jsonl, built, upload
from tests.integration.trainer.conftest import Bench, eventually, pairs
from tests.integration.trainer.retraining import Domain, run_pretended, waits_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    async with run_pretended(run_service, tiny_model, tmp_path_factory.mktemp("retraining")) as running:
        yield running


@pytest.fixture
def domain(bench: Bench, tiny_model: Path) -> Domain:
    """A domain of this test's own."""
    return Domain(bench, tiny_model)


@pytest.mark.parametrize("retire", [False, pytest.param(True, marks=pytest.mark.heavy)])
async def test_a_version_that_learned_from_erased_records_is_trained_again_without_them_where_the_rules_have_it_so(
    domain: Domain, retire: bool
) -> None:
    bench = domain.bench
    adapter_id = await domain.activate()
    await bench.record(pairs(domain.name, 8))
    await domain.set(after_erasure=True)
    if retire:
        family = f"{domain.name}-lora"
        gone = v1.AdapterDeactivated(adapter_id=adapter_id, family=family, domain=domain.name, revision=5000)
        await bench.upstream.publish(gone)
    erasure_id = f"er-{domain.name}"
    async with domain.database() as connection:
        await connection.execute(
            "insert into erasures (erasure_id, domain, subject, requested_by, reason, retire, state, adapters)"
            " values ($1, $2, $1, 'test', '', $3, 'erased', $4)",
            erasure_id,
            domain.name,
            retire,
            [adapter_id],
        )
    (fired,) = await domain.fired()
    assert (fired["triggers"], erasure_id in fired["reason"]) == (["erasure"], True)
    job = await bench.until(fired["job_id"], "failed")
    assert job["continued_from"] is None, "what learned from the records is not trained further"
    await domain.fired(1)


@pytest.mark.requirement("LA-1.7")
@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.heavy)])
async def test_after_an_erasure_the_recipe_that_the_version_learned_from_is_built_again_without_the_records(
    domain: Domain, killed: bool
) -> None:
    bench = domain.bench
    people = [{"prompt": one["prompt"], "completion": one["completion"]} for one in pairs(domain.name, 8)]
    for line in people[:2]:
        line["subject"] = "anna"
    held, records = await built(bench, await upload(bench, "gates.jsonl", as_jsonl(people)))
    left = [one for one in records if not one.subjects]
    assert 0 < len(left) < len(records)
    adapter_id = await domain.activate()
    async with domain.database() as connection:
        await connection.execute(
            "update jobs set request = request || jsonb_build_object('datasetId', $2::text), dataset_id = $2"
            " where job_id = (select job_id from adapters where adapter_id = $1)",
            adapter_id,
            held,
        )
        # The pretended training's own data set has no file that an erasure could search.
        await connection.execute("update datasets set removed_at = now() where dataset_id = $1", domain.name)
    wanted = {"subject": "anna", "domain": domain.name, "adapters": "replace"}
    refused = await bench.trainer.client.post("/v1/erasures", json=wanted)
    assert (refused.status_code, refused.json()["field"]) == (409, "adapters"), "no rules train it again"
    await domain.set()
    async with AsyncExitStack() as stopped:
        if killed:  # in the transaction that requests the build
            connection = await stopped.enter_async_context(domain.database())
            await connection.execute("begin; lock table dataset_builds in exclusive mode")
        asked = (await bench.trainer.client.post("/v1/erasures", json=wanted)).json()
        if killed:
            await eventually(lambda: waits_for(connection, "dataset_builds"), 60)
            await bench.trainer.crash()
            await connection.execute("rollback")
            await bench.trainer.start()
    (fired,) = await domain.fired()
    assert (fired["triggers"], asked["erasure_id"] in fired["reason"]) == (["erasure"], True)
    job = await bench.until(fired["job_id"], "failed")  # its training is pretended
    (requested,) = await bench.upstream.published(v1.TrainingRequested, fired["job_id"])
    assert (requested.dataset_id, requested.triggers) == (job["dataset"], (v1.RetrainingTrigger.ERASURE,))
    assert adapter_id in requested.reason
    kept = (await bench.trainer.client.get(f"/v1/datasets/{job['dataset']}")).json()
    assert (job["dataset"] != held, kept["name"], kept["samples"]) == (True, "gates", len(left))
    assert job["continued_from"] is None
    assert (await bench.trainer.client.get(f"/v1/datasets/{held}/records")).status_code == 410
    builds = (await bench.trainer.client.get("/v1/datasets/builds")).json()["builds"]
    assert len([one for one in builds if one["domain"] == domain.name]) == 2, "it is built again once"
    await domain.fired(1)


@pytest.mark.requirement("LA-1.7")
async def test_a_version_that_was_trained_on_a_teachers_answers_learned_from_the_teachers_records(
    domain: Domain,
) -> None:
    teacher, student = await domain.activate(), await domain.activate("1.1.0")
    distils = v1.TrainingRequested(domain=domain.name, distil_from=teacher).model_dump(mode="json")
    async with domain.database() as connection:
        own = f"{domain.name}-teacher"
        await connection.execute(
            "insert into datasets (dataset_id, domain, kind, samples, uri, sha256, bytes)"
            " values ($1, $2, 'completion', 1, 's3://b/d', '', 1)",
            own,
            domain.name,
        )
        of_job = "where job_id = (select job_id from adapters where adapter_id = $1)"
        await connection.execute(f"update jobs set dataset_id = $2 {of_job}", teacher, own)
        await connection.execute(f"update jobs set request = $2 {of_job}", student, distils)
        assert await learned_store.learned_from(connection, [own]) == [teacher, student]
