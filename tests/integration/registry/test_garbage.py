"""Versions that the rules let go, and their files, on a real object store; what serves or is held loses nothing."""

from __future__ import annotations

import io
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from fleet_cli.stack.fleet import Fleet
from fleet_cli.stack.objects import s3_client
from fleet_events import v1
from tests.conftest import Mint, RunningService, RunService
from tests.integration.registry.conftest import UNJUDGED, Upstream, eventually, permit_unjudged
from tests.integration.registry.uploads import upload

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bucket(servers: Fleet) -> str:
    """A bucket of this module's own: a collection deletes whatever nothing refers to."""
    name = f"gc-{secrets.token_hex(4)}"
    s3_client(servers.ports["s3"], servers.credentials.s3["admin"]).make_bucket(name)
    return name


@pytest.fixture(scope="module")
async def registry(
    run_service: RunService, base_model: Path, servers: Fleet, bucket: str
) -> AsyncIterator[RunningService]:
    key = servers.credentials.s3["admin"]
    async with run_service(
        "registry",
        LORAFLEET_BASE_MODEL=str(base_model),
        LORAFLEET_S3_BUCKET=bucket,
        LORAFLEET_S3_ACCESS_KEY=key.access,
        LORAFLEET_S3_SECRET_KEY=key.secret,
        LORAFLEET_GC_GRACE_HOURS=str(2 / 3600),
        LORAFLEET_ADAPTER_RETENTION='{"*": {"rejected_days": 0, "superseded_days": 0, "keep_newest": 1}}',
    ) as running:
        yield running


async def collected(registry: RunningService, *, apply: bool) -> dict[str, Any]:
    reply = await registry.client.post("/v1/gc", json={"apply": apply})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_a_version_is_let_go_with_its_files_and_the_one_that_serves_keeps_its_own(
    registry: RunningService,
    upstream: Upstream,
    servers: Fleet,
    bucket: str,
    peft: Path,
    domain: str,
) -> None:
    client = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])

    def stored() -> set[str]:
        return {
            one.object_name or "" for kind in ("artifacts", "checkpoints")
            for one in client.list_objects(bucket, prefix=f"registry/{kind}/", recursive=True)
        }  # fmt: skip

    await permit_unjudged(registry, domain)
    orphan = f"registry/artifacts/{'0' * 64}"
    client.put_object(bucket, orphan, io.BytesIO(b"killed before its commit"), 24)
    made = [(await upload(registry.client, peft, domain=domain, description=f"number {n}")).json() for n in range(3)]
    ids = [one["adapter_id"] for one in made]
    for name in ids[:2]:
        reply = await registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED)
        assert reply.status_code == 200, reply.text
    for verb in ("hold", "reject"):
        assert (await registry.client.post(f"/v1/adapters/{ids[2]}/{verb}", json={"reason": "r"})).status_code < 300

    await eventually(lambda: _nothing_young(registry))
    before = stored()
    dry = await collected(registry, apply=False)
    assert [one["adapter_id"] for one in dry["released"]] == [ids[0]], "the third is held, the second serves"
    assert sum(one["unreferenced"] for one in dry["kinds"]) == 1, "the orphan; a dry run lets no version go"
    assert stored() == before

    applied = await collected(registry, apply=True)
    assert [one["adapter_id"] for one in applied["released"]] == [ids[0]]
    assert before - stored() == {orphan}, "the files of what was let go stay for the grace time"
    found = (await registry.client.get(f"/v1/adapters/{ids[0]}")).json()
    assert found["released_at"]
    refused = await registry.client.post(f"/v1/adapters/{ids[0]}/activate", json={"reason": "again"})
    assert (refused.status_code, "was released" in refused.text) == (409, True)
    (event,) = await eventually(lambda: upstream.published(v1.AdapterReleased, domain=domain))
    assert (event.adapter_id, event.by) == (ids[0], "retention")

    # All three have the same weights: the two that stay hold the objects.
    await eventually(lambda: _nothing_young(registry))
    assert sum(one["deleted"] for one in (await collected(registry, apply=True))["kinds"]) == 0
    needed = {found[part]["uri"].removeprefix(f"s3://{bucket}/") for part in ("artifact", "checkpoint")}
    assert needed <= stored()
    assert (await registry.client.post(f"/v1/adapters/{ids[2]}/unhold", json={})).status_code == 200
    assert (await registry.client.post(f"/v1/adapters/{ids[1]}/reject", json={})).status_code in (200, 202)
    applied = await collected(registry, apply=True)
    assert {one["adapter_id"] for one in applied["released"]} == set(ids[1:])

    async def gone() -> bool:
        await collected(registry, apply=True)
        return not needed & stored()

    await eventually(gone)
    trail = (await registry.client.get(f"/v1/adapters/{ids[2]}/audit")).json()["entries"]
    assert [one["action"] for one in trail] == ["registered", "held", "rejected", "unheld", "released"]


async def _nothing_young(registry: RunningService) -> bool:
    return not sum(one["young"] for one in (await collected(registry, apply=False))["kinds"])


async def test_a_collection_takes_an_admin_of_the_whole_fleet(registry: RunningService, mint: Mint) -> None:
    headers = {"Authorization": f"Bearer {mint(['admin', 'adapters:write'], ['*'])}"}
    async with httpx.AsyncClient(base_url=registry.url, headers=headers) as client:
        assert (await client.post("/v1/gc", json={})).status_code == 403


async def test_an_emptied_database_releases_and_deletes_nothing(registry: RunningService) -> None:
    options = {"search_path": "registry"}
    connection = await asyncpg.connect(registry.env["LORAFLEET_DATABASE_URL"], server_settings=options)
    await connection.execute("update object_owner set database_id = 'emptied'")
    refused = await registry.client.post("/v1/gc", json={"apply": True})
    assert (refused.status_code, "lorafleet gc --adopt registry" in refused.text) == (409, True)
    assert (await registry.client.post("/v1/gc/adoption")).json()["database_id"] == "emptied"
    await connection.close()
    assert (await collected(registry, apply=True))["applied"]
