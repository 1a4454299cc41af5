"""The registry's HTTP surface: uploads, decisions, policies, and who may see what."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest

from fleet_events import v1
from lora_core import LoRAFormat
from tests.conftest import Mint, RunningService
from tests.integration.registry.conftest import UNJUDGED, Upstream, card, eventually, permit_unjudged
from tests.integration.registry.uploads import files_of, upload

pytestmark = pytest.mark.integration


@pytest.mark.requirement("AM-1.1")
async def test_a_peft_folder_is_registered_with_a_unique_id_and_its_metadata(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str, tmp_path: Path
) -> None:
    answer = await upload(registry.client, peft, domain=domain, version="1.2.3", description="by hand")
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["adapter_id"] == f"{domain}-lora-v1.2.3"
    assert answer.headers["location"] == f"/v1/adapters/{domain}-lora-v1.2.3"
    assert (found["rank"], found["alpha"], found["target_modules"]) == (4, 8.0, ["q_proj"])
    assert found["base_model"]["revision"] == upstream.revision
    assert (found["description"], found["status"], found["training"]) == ("by hand", "pending_review", None)
    stored = await upstream.blobs.fetch(v1.Blob(**found["artifact"]), tmp_path / "back")
    again = LoRAFormat.load(stored)
    original = card(upstream.shapes)
    for module, weights in original.weights.items():
        np.testing.assert_array_equal(again.weights[module].a, weights.a)
        np.testing.assert_array_equal(again.weights[module].b, weights.b)
    (event,) = await eventually(lambda: upstream.published(v1.AdapterRegistered, domain=domain))
    assert event.adapter.artifact.blob.sha256 == found["artifact_sha256"]


@pytest.mark.requirement("AM-1.3")
@pytest.mark.requirement("LA-1.1")
async def test_a_duplicate_version_is_refused_with_the_next_version_suggested(
    registry: RunningService, peft: Path, domain: str
) -> None:
    await upload(registry.client, peft, domain=domain, version="1.4.1")
    answer = await upload(registry.client, peft, domain=domain, version="1.4.1")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["field"], problem["next_version"]) == ("version", "1.4.2")
    assert "1.4.2" in problem["detail"]
    retried = await upload(registry.client, peft, domain=domain, version=problem["next_version"])
    assert retried.status_code == 201
    computed = await upload(registry.client, peft, domain=domain)
    assert computed.json()["version"] == "1.4.3"


@pytest.mark.requirement("LA-1.2")
async def test_an_upload_s_bump_is_honoured(registry: RunningService, peft: Path, domain: str) -> None:
    versions = [
        (await upload(registry.client, peft, domain=domain, **fields)).json()["version"]
        for fields in ({}, {"bump": "minor"}, {}, {"bump": "major"})
    ]
    assert versions == ["1.0.0", "1.1.0", "1.1.1", "2.0.0"]


@pytest.mark.requirement("AM-2.1")
@pytest.mark.requirement("AM-2.2")
@pytest.mark.requirement("LA-1.7")
async def test_versions_are_listed_by_domain_status_activity_and_base_model(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    ids = [(await upload(registry.client, peft, domain=domain)).json()["adapter_id"] for _ in range(3)]
    await permit_unjudged(registry, domain)
    await registry.client.post(f"/v1/adapters/{ids[0]}/approve", json=UNJUDGED)
    await registry.client.post(f"/v1/adapters/{ids[1]}/reject", json={"reason": "bad"})

    async def listed(**query: object) -> list[str]:
        answer = await registry.client.get("/v1/adapters", params={"domain": domain, **query})
        assert answer.status_code == 200, answer.text
        return [one["adapter_id"] for one in answer.json()["adapters"]]

    assert await listed() == ids[::-1]
    assert await listed(status="pending_review") == [ids[2]]
    assert await listed(status="rejected") == [ids[1]]
    assert await listed(active="true") == [ids[0]]
    assert await listed(active="false") == [ids[2], ids[1]]
    assert await listed(base_model=upstream.base_name) == ids[::-1]
    assert await listed(base_model=upstream.revision) == ids[::-1]
    assert await listed(base_model="another-model") == []
    first = (await registry.client.get("/v1/adapters", params={"domain": domain, "limit": 2})).json()
    assert [one["adapter_id"] for one in first["adapters"]] == ids[:0:-1]
    assert await listed(limit=2, before=first["next"]) == [ids[0]]
    wrong = await registry.client.get("/v1/adapters", params={"status": "great"})
    assert wrong.status_code == 422


async def test_a_caller_sees_and_changes_its_own_domains_alone(
    registry: RunningService, mint: Mint, peft: Path, domain: str
) -> None:
    name = (await upload(registry.client, peft, domain=domain)).json()["adapter_id"]
    scopes = ["adapters:read", "adapters:write", "adapters:approve", "admin"]
    outsider = {"Authorization": f"Bearer {mint(scopes, [f'not-{domain}'])}"}
    client = registry.client
    for path in ("", "/provenance", "/audit", "/evaluations", "/report"):
        assert (await client.get(f"/v1/adapters/{name}{path}", headers=outsider)).status_code == 404, path
    for step in ("approve", "reject", "activate", "deactivate"):
        answer = await client.post(f"/v1/adapters/{name}/{step}", json={}, headers=outsider)
        assert answer.status_code == 404, step
    absent = await client.get("/v1/adapters/nobody-lora-v1.0.0", headers=outsider)
    hidden = await client.get(f"/v1/adapters/{name}", headers=outsider)
    assert absent.json()["detail"].replace("nobody-lora-v1.0.0", "X") == hidden.json()["detail"].replace(name, "X")
    assert (await client.get("/v1/adapters", params={"domain": domain}, headers=outsider)).status_code == 403
    assert (await client.get("/v1/adapters", headers=outsider)).json()["adapters"] == []
    assert (await client.get("/v1/refusals", params={"domain": domain}, headers=outsider)).status_code == 403
    assert (await client.get("/v1/statistics", headers=outsider)).json()["domains"] == []
    assert (await client.get(f"/v1/policies/{domain}", headers=outsider)).status_code == 403
    assert (await client.get(f"/v1/policies/{domain}/audit", headers=outsider)).status_code == 403
    assert (await client.put(f"/v1/policies/{domain}", json={}, headers=outsider)).status_code == 403
    sent = await client.post("/v1/adapters", data={"domain": domain}, files=files_of(peft), headers=outsider)
    assert sent.status_code == 403
    insider = {"Authorization": f"Bearer {mint(['adapters:read'], [domain])}"}
    assert (await client.get(f"/v1/adapters/{name}", headers=insider)).json()["status"] == "pending_review"
    assert (await client.post(f"/v1/adapters/{name}/approve", json={}, headers=insider)).status_code == 403
    assert (await client.post(f"/v1/adapters/{name}/activate", json={}, headers=insider)).status_code == 403
    nobody = httpx.AsyncClient(base_url=registry.url)
    async with nobody:
        assert (await nobody.get("/v1/adapters")).status_code == 401


async def test_uploads_at_once_get_a_version_each(registry: RunningService, peft: Path, domain: str) -> None:

    answers = await asyncio.gather(*(upload(registry.client, peft, domain=domain) for _ in range(4)))
    assert sorted(answer.json()["version"] for answer in answers) == ["1.0.0", "1.0.1", "1.0.2", "1.0.3"]
