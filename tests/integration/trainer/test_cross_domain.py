"""What a caller of another domain learns of the trainer's jobs, data sets, builds and uploads: nothing."""

from __future__ import annotations

import httpx
import pytest

from tests.conftest import Mint
from tests.integration.strangers import LETTERS, Stranger
from tests.integration.trainer.building import as_jsonl, build, upload
from tests.integration.trainer.conftest import Bench, pairs

pytestmark = pytest.mark.integration


async def test_another_domains_things_read_like_none_at_every_route(
    bench: Bench, mint: Mint, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": one["prompt"], "completion": one["completion"]} for one in pairs(bench.domain)]
    source = await upload(bench, "gates.jsonl", as_jsonl(rows))
    built = await build(bench, source)
    assert built["state"] == "succeeded", built
    await bench.record(pairs(bench.domain))
    job_id = await bench.submit()
    mine = f"{bench.domain}z"
    headers = {"Authorization": f"Bearer {mint(['train'], [mine])}"}
    async with httpx.AsyncClient(base_url=bench.trainer.url, headers=headers, timeout=30) as client:
        stranger = Stranger(client)
        await stranger.walk(
            {
                "job_id": job_id,
                "dataset_id": built["dataset_id"],
                "build_id": built["build_id"],
                "upload_id": source["upload_id"],
            },
            {"kind": "gguf", "erasure_id": "tried below", "domain": "tried below"} | LETTERS,
            params={"domain": mine},
        )
        for path in ("", "/firings"):
            await stranger.compare("GET", f"/v1/retraining/ID{path}", bench.domain, f"{bench.domain}y", status=403)
        other = "0" * 64
        for name, foreign in (("datasetId", built["dataset_id"]), ("continueFrom", job_id)):
            await stranger.compare("POST", "/v1/jobs", foreign, other, status=422, json={"domain": mine, name: "ID"})
        await stranger.refused("POST", "/v1/jobs", json=bench.request())
        await stranger.refused("POST", "/v1/samples", content=as_jsonl(pairs(bench.domain)[:1]))
        recipe = {"domain": bench.domain, "name": "x", "sources": [source]}
        await stranger.refused("POST", "/v1/datasets", json=recipe)
        named = {"domain": bench.domain, "filename": "x.jsonl"}
        await stranger.refused("PUT", "/v1/uploads", params=named, content=b"{}")
        await stranger.refused("DELETE", f"/v1/uploads/{source['upload_id']}", params={"domain": bench.domain})
        await stranger.refused("DELETE", "/v1/uploads/none", params={"domain": bench.domain})
        await stranger.sees_nothing_of(
            bench.domain + '"', "/v1/jobs", "/v1/datasets", "/v1/datasets/builds", "/v1/uploads"
        )
        forget = {"subject": "anna", "domain": bench.domain}
        erasure = (await bench.trainer.client.post("/v1/erasures", json=forget)).raise_for_status().json()
        client.headers["Authorization"] = f"Bearer {mint(['admin'], [mine])}"
        await stranger.compare("GET", "/v1/erasures/ID", erasure["erasure_id"], "erasure-none")
        await stranger.sees_nothing_of(erasure["erasure_id"], "/v1/erasures")
        with capsys.disabled():
            stranger.report("trainer")
    assert (await bench.job(job_id))["state"] in ("queued", "running", "succeeded")
