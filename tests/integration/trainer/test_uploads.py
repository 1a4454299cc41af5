"""Uploaded files: listed, deleted, put again."""

from __future__ import annotations

import asyncio

import pytest

from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET, s3_client
from tests.integration.trainer.building import as_jsonl, build, built, upload
from tests.integration.trainer.conftest import Bench

pytestmark = pytest.mark.integration

ROWS = [{"prompt": f"What is gate {n}?", "completion": f"Gate {n} opens at dusk."} for n in range(8)]


async def test_a_deleted_upload_leaves_the_data_sets_that_were_built_from_it(bench: Bench, servers: Fleet) -> None:
    source = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    dataset_id, records = await built(bench, source)
    client, path = bench.trainer.client, f"/v1/uploads/{source['upload_id']}"
    (listed,) = (await client.get("/v1/uploads")).json()["uploads"][:1]
    assert (listed["upload_id"], listed["filename"]) == (source["upload_id"], "gates.jsonl")

    assert (await client.delete(path, params={"domain": "elsewhere"})).status_code in (403, 404)
    assert (await client.delete(path, params={"domain": bench.domain})).json() == listed
    assert (await client.delete(path, params={"domain": bench.domain})).status_code == 404
    assert listed not in (await client.get("/v1/uploads")).json()["uploads"]
    store = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
    assert list(store.list_objects(BUCKET, f"trainer/uploads/{bench.domain}/", recursive=True)) == []
    again = await build(bench, source)
    assert (again["state"], again["faults"][0]["field"]) == ("failed", "sources.0.upload_id")
    kept = await client.get(f"/v1/datasets/{dataset_id}/records")
    assert len(kept.text.splitlines()) == len(records)


async def test_an_upload_that_is_put_again_while_it_is_deleted_has_its_file_if_it_is_listed(
    bench: Bench, servers: Fleet
) -> None:
    source = await upload(bench, "gates.jsonl", as_jsonl(ROWS))
    client, path = bench.trainer.client, f"/v1/uploads/{source['upload_id']}"
    store = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
    for _ in range(5):
        await asyncio.gather(
            *(upload(bench, "gates.jsonl", as_jsonl(ROWS)) for _ in range(3)),
            client.delete(path, params={"domain": bench.domain}),
            upload(bench, "gates.jsonl", as_jsonl(ROWS)),
        )
        listed = (await client.get("/v1/uploads")).json()["uploads"]
        present = [one["upload_id"] for one in listed if one["domain"] == bench.domain]
        found = [
            one.object_name for one in store.list_objects(BUCKET, f"trainer/uploads/{bench.domain}/", recursive=True)
        ]
        assert [name.rpartition("/")[2] for name in found] == present
