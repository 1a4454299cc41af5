"""The registry killed at the worst moments, its servers taken away, and how little of the machine it takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_kit.dead_letters import list_dead, replay
from lora_core.interop import to_peft
from tests.conftest import RunningService, RunService, ServiceEnv
from tests.integration.registry.conftest import UNJUDGED, Get, Upstream, card, eventually, permit_unjudged

pytestmark = pytest.mark.integration

OUTAGE_SECONDS = 3
"""How long a server stays away once its absence is noticed: several tries of what waits for it."""


@asynccontextmanager
async def nothing_is_relayed(service_env: ServiceEnv) -> AsyncIterator[asyncpg.Connection]:
    """Hold the outbox relay's lock, so that what a service commits stays unpublished; gives a connection to look."""
    connection = await asyncpg.connect(service_env("registry")["LORAFLEET_DATABASE_URL"])
    try:
        await connection.execute("select pg_advisory_lock(hashtext('outbox:registry'))")
        yield connection
    finally:
        await connection.close()


async def test_a_change_committed_before_a_kill_is_published_once_after_the_restart(
    registry: RunningService, upstream: Upstream, domain: str, service_env: ServiceEnv, tmp_path: Path
) -> None:
    to_peft(card(upstream.shapes), tmp_path / "peft")
    await registry.crash()
    async with nothing_is_relayed(service_env) as connection:
        await registry.start()
        files = [("files", (file.name, file.read_bytes())) for file in (tmp_path / "peft").iterdir()]
        answer = await registry.client.post("/v1/adapters", data={"domain": domain}, files=files)
        name = answer.json()["adapter_id"]
        await permit_unjudged(registry, domain)
        assert (await registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED)).status_code == 200
        waiting = await connection.fetchval("select count(*) from registry.outbox where published_at is null")
        assert waiting >= 3
        assert await upstream.published(v1.AdapterRegistered, v1.AdapterActivated, domain=domain) == []
        await registry.crash()
    await registry.start()
    kinds = (v1.AdapterRegistered, v1.Approved, v1.AdapterActivated)

    async def all_published() -> Any:
        events = await upstream.published(*kinds, domain=domain)
        return events if len(events) >= len(kinds) else None

    events = await eventually(all_published)
    assert [(type(event), event.revision) for event in events] == list(zip(kinds, (1, 2, 3), strict=True))
    assert (await registry.client.get(f"/v1/adapters/{name}")).json()["active"]


async def test_a_killed_registry_s_upload_folders_are_gone_after_the_restart(
    run_service: RunService, base_model: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_SCRATCH": str(scratch)}
    async with run_service("registry", **bounds) as registry:

        async def half() -> AsyncIterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="adapter_model.safetensors"\r\n\r\nxx'
            await asyncio.sleep(60)

        headers = {"content-type": "multipart/form-data; boundary=b"}
        sending = asyncio.create_task(registry.client.post("/v1/adapters", content=half(), headers=headers))

        async def received() -> Any:
            return [entry for own in scratch.iterdir() for entry in own.iterdir() if entry.is_dir()]

        await eventually(received)
        before = set(scratch.iterdir())
        await registry.crash()
        sending.cancel()
        assert set(scratch.iterdir()) == before  # a kill leaves them
        await registry.start()
        assert not before & set(scratch.iterdir())
        assert not await received()


@pytest.mark.heavy
async def test_kills_under_a_stream_of_trainings_and_scores_lose_nothing_and_double_nothing(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    # Four versions are approved at once, each with the one before it not yet known to be active.
    await registry.client.put(f"/v1/policies/{domain}", json={"mode": "simple"})
    trainings = [await upstream.trained(domain, seed=seed) for seed in range(4)]
    for number, event in enumerate(trainings):
        await upstream.publish(event)
        await asyncio.sleep(0.12 * number)  # fetching, opening, committing, publishing: each time a step further
        await registry.crash()
        await registry.start()

    async def all_registered() -> Any:
        found = await adapters(domain)
        return found if len(found) == len(trainings) else None

    found = await eventually(all_registered, timeout=60)
    for number, one in enumerate(found):
        await upstream.publish(upstream.scored(one, 90))
        if number % 2:
            await asyncio.sleep(0.01 * number)
            await registry.crash()
            await registry.start()

    async def all_approved() -> Any:
        return {one["status"] for one in await adapters(domain)} == {"approved"}

    await eventually(all_approved, timeout=60)
    kinds = (v1.AdapterRegistered, v1.Approved, v1.AdapterActivated, v1.AdapterDeactivated)

    async def complete() -> Any:
        events = await upstream.published(*kinds, domain=domain)
        revisions = sorted(event.revision for event in events)
        return events if revisions == list(range(1, len(revisions) + 1)) and len(events) >= 9 else None

    events = await eventually(complete)
    counted = Counter(type(event).__name__ for event in events)
    assert counted["AdapterRegistered"] == counted["Approved"] == len(trainings)
    assert counted["AdapterActivated"] - counted["AdapterDeactivated"] == 1
    (active,) = [one for one in await adapters(domain) if one["active"]]
    assert active["version"] == max(one["version"] for one in found)


async def test_a_refused_training_registers_when_it_is_replayed_after_the_cause_is_gone(
    registry: RunningService, run_service: RunService, upstream: Upstream, adapters: Get, domain: str, base_model: Path
) -> None:
    await registry.crash()
    event = await upstream.trained(domain)
    async with run_service("registry", LORAFLEET_BASE_MODEL=str(base_model), LORAFLEET_BASE_MODEL_NAME="other") as odd:
        await upstream.publish(event)

        async def refused() -> Any:
            return (await odd.client.get("/v1/refusals", params={"domain": domain})).json()["refusals"]

        (refusal,) = await eventually(refused)
        assert refusal["field"] == "base_model.name"
        assert "these are: other" in refusal["reason"]

        async def buried() -> Any:
            letters = [letter async for letter in list_dead(upstream.jetstream, "registry-training_completed")]
            return [letter for letter in letters if letter.reason.endswith("these are: other")]

        (letter,) = await eventually(buried)
    await registry.start()
    await replay(upstream.jetstream, letter.sequence)
    (adapter,) = await eventually(lambda: adapters(domain))
    assert adapter["artifact_sha256"] == event.artifact.blob.sha256
    left = (await registry.client.get("/v1/refusals", params={"domain": domain})).json()["refusals"]
    assert left == []


@pytest.mark.parametrize("part", ["nats", pytest.param("s3", marks=pytest.mark.heavy), "postgres"])
async def test_a_server_that_goes_away_is_waited_for_and_readiness_says_so(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str, servers: Fleet, part: str
) -> None:
    event = await upstream.trained(domain)
    if part != "nats":
        await asyncio.to_thread(servers.stop_part, part)
        await upstream.publish(event)
    else:
        await upstream.publish(event)
        await asyncio.to_thread(servers.stop_part, part)
    try:

        async def not_ready() -> Any:
            return (await registry.client.get("/readyz")).status_code == 503

        await eventually(not_ready)
        assert (await registry.client.get("/healthz")).status_code == 200
        await asyncio.sleep(OUTAGE_SECONDS)
    finally:
        await asyncio.to_thread(servers.start_part, part)
    await registry.wait_ready()

    async def registered() -> Any:
        answer = await registry.client.get("/v1/adapters", params={"domain": domain})
        return answer.status_code == 200 and len(answer.json()["adapters"]) == 1

    await eventually(registered, timeout=60)
    assert not [reason for reason in await upstream.dead_reasons() if event.job_id in reason]


async def test_an_idle_registry_takes_under_120_mb_and_torch_is_never_loaded(
    run_service: RunService, base_model: Path, upstream: Upstream, domain: str, adapters: Get
) -> None:
    async with run_service("registry", LORAFLEET_BASE_MODEL=str(base_model)) as fresh:
        pid = fresh.single.process.pid
        assert pid is not None
        process = psutil.Process(pid)
        await asyncio.sleep(3)  # the base model's revision is read in the background
        idle = process.memory_info().rss
        assert idle < 120e6, f"{idle / 1e6:.0f} MB"
        assert not _maps(process, "pyarrow", "torch")
        await upstream.publish(await upstream.trained(domain))
        await eventually(lambda: adapters(domain))
        assert not _maps(process, "pyarrow", "torch")  # what is registered is opened in a process of its own


def _maps(process: psutil.Process, *packages: str) -> list[str]:
    return [m.path for m in process.memory_maps() if any(f"site-packages/{name}" in m.path for name in packages)]
