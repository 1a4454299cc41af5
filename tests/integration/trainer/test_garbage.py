"""The trainer's objects on a real store: random chains of trainings lose nothing that something kept needs."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext

from fleet_cli.stack.fleet import Fleet
from fleet_cli.stack.objects import s3_client
from fleet_events import v1
from fleet_kit.blobs import Blobs
from fleet_kit.object_sweep import FEW, sweep
from fleet_kit.settings import ServiceSettings
from tests.conftest import RunningService, RunService
from tests.integration.trainer.conftest import Upstream, eventually

pytestmark = pytest.mark.integration


class _Settings(ServiceSettings):
    pass


@dataclass
class Store:
    """A trainer with a bucket of its own, its rows, and its objects."""

    trainer: RunningService
    connection: asyncpg.Connection
    blobs: Blobs
    written: dict[str, str] = field(default_factory=dict)
    """URI → what it is."""

    async def put(self, kind: str, what: str) -> str:
        blob = await self.blobs.put(kind, what.encode())
        self.written[blob.uri] = what
        return blob.uri

    async def left(self) -> set[str]:
        """What of the written objects is still there."""
        found: set[str] = set()
        for kind in {uri.split("/")[4] for uri in self.written}:
            async for page in self.blobs.pages(kind):
                found |= {self.blobs.uri(one.key) for one in page}
        return {what for uri, what in self.written.items() if uri in found}

    async def collect(self, *, apply: bool, at_most: int = 0) -> dict[str, Any]:
        reply = await self.trainer.client.post("/v1/gc", json={"apply": apply, "at_most": at_most})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def refused(self) -> str:
        """Why a collection is refused, which must delete nothing; a dry run tells the same."""
        before = await self.left()
        told = (await self.collect(apply=False))["refused"]
        reply = await self.trainer.client.post("/v1/gc", json={"apply": True})
        assert (reply.status_code, reply.json()["detail"]) == (409, told)
        assert await self.left() == before
        return str(told)

    async def aged(self) -> None:
        """Until nothing is younger than the grace time."""

        async def check() -> bool:
            return not sum(one["young"] for one in (await self.collect(apply=False))["kinds"])

        await eventually(check)


@pytest.fixture(scope="module")
async def keeper(
    run_service: RunService, tiny_model: Path, servers: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    bucket, key = f"gc-{secrets.token_hex(4)}", servers.credentials.s3["admin"]
    s3_client(servers.ports["s3"], key).make_bucket(bucket)
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_BASE_MODEL_NAME="tiny-llama",
        LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("keeper")),
        LORAFLEET_S3_BUCKET=bucket,
        LORAFLEET_S3_ACCESS_KEY=key.access,
        LORAFLEET_S3_SECRET_KEY=key.secret,
        LORAFLEET_GC_GRACE_HOURS=str(2 / 3600),
        LORAFLEET_DATASET_RETENTION='{"*": {"superseded_days": 0}}',
    ) as running:
        yield running


@pytest.fixture
async def store(keeper: RunningService) -> AsyncIterator[Store]:
    values = {name.removeprefix("LORAFLEET_").lower(): value for name, value in keeper.env.items()}
    connection = await asyncpg.connect(keeper.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "trainer"})
    yield Store(keeper, connection, Blobs("trainer", _Settings.model_validate(values)))
    await connection.close()


async def add_job(
    store: Store, job_id: str, uris: list[str], *, continues: str = "", state: str = "succeeded", dataset: str = ""
) -> None:
    named = {"files": [{"uri": uri, "sha256": "0" * 64} for uri in uris]}
    await store.connection.execute(
        """
        insert into jobs (job_id, domain, state, request, dataset_id, completed, continued, created_at, finished_at)
        values ($1, 'd', $2, $3, $4, $5, $6, now(), now())
        """,
        job_id,
        state,
        json.dumps({"domain": "d"}),
        dataset or None,
        json.dumps(named) if state == "succeeded" else None,
        json.dumps({"job_id": continues}) if continues else None,
    )


async def add_dataset(store: Store, name: str, version: int, uri: str) -> str:
    dataset_id = secrets.token_hex(32)
    await store.connection.execute(
        "insert into datasets (dataset_id, domain, kind, samples, uri, sha256, bytes, created_at)"
        " values ($1, 'd', 'completion', 1, $2, $3, 1, now() - interval '1 day')",
        dataset_id,
        uri,
        "0" * 64,
    )
    await store.connection.execute(
        "insert into dataset_versions (domain, name, version, dataset_id, card_uri, card_sha256, card_bytes)"
        " values ('d', $1, $2, $3, $4, $5, 1)",
        name,
        version,
        dataset_id,
        f"{uri}-card",
        "0" * 64,
    )
    return dataset_id


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_random_graph_of_trainings_keeps_exactly_what_an_unreleased_or_open_one_was_made_from(
    store: Store, seed: int
) -> None:
    rng, tag = random.Random(seed), secrets.token_hex(3)
    parents: dict[int, int | None] = {}
    files: dict[int, set[str]] = {}
    states = {n: rng.choice(["succeeded", "succeeded", "succeeded", "paused"]) for n in range(14)}
    released = {n for n in range(14) if states[n] == "succeeded" and rng.random() < 0.6}
    shared = [await store.put("reports", f"{tag} shared {n}") for n in range(4)]
    for n in range(14):
        parents[n] = rng.choice([None, *range(n)]) if n else None
        own = [await store.put(kind, f"{tag} {kind} {n}") for kind in ("artifacts", "checkpoints")]
        uris = [*own, rng.choice(shared)]
        files[n] = {store.written[uri] for uri in uris}
        continues = f"{tag}-{parents[n]}" if parents[n] is not None else ""
        await add_job(store, f"{tag}-{n}", uris, continues=continues, state=states[n])
    for n in released:
        await store.connection.execute("insert into releases values ($1, $1, now() - interval '1 hour')", f"{tag}-{n}")
    needed: set[str] = set()
    for n in range(14):
        link: int | None = n if n not in released else None
        while link is not None:
            if states[link] == "succeeded":
                needed |= files[link]
            link = parents[link]
    everything = set(store.written.values())
    await store.aged()
    await store.collect(apply=False)
    assert await store.left() == everything, "a dry run deletes nothing"
    await store.collect(apply=True)
    assert await store.left() == needed
    assert needed
    assert needed != everything


async def test_what_a_killed_upload_left_is_found_once_it_is_old_enough_and_no_sooner(store: Store) -> None:
    await store.put("datasets", f"orphan {secrets.token_hex(4)}")
    first = await store.collect(apply=True)
    young = {one["kind"]: one["young"] for one in first["kinds"]}
    assert young["datasets"] == 1
    assert len(await store.left()) == 1
    await store.aged()
    listed = {one["kind"]: one for one in (await store.collect(apply=False))["kinds"]}["datasets"]
    assert (listed["unreferenced"], listed["deleted"], listed["unreferenced_bytes"]) == (1, 0, 15)
    applied = {one["kind"]: one for one in (await store.collect(apply=True))["kinds"]}["datasets"]
    assert (applied["deleted"], applied["deleted_bytes"]) == (1, 15)
    assert await store.left() == set()


async def test_an_object_that_is_written_or_named_again_while_a_collection_runs_stays(store: Store) -> None:
    kind, tag = f"test-{secrets.token_hex(4)}", secrets.token_hex(4)
    named, again, gone = [await store.put(kind, f"{tag} {n}") for n in range(3)]
    found = [page async for page in store.blobs.pages(kind)]
    listed = {store.blobs.uri(one.key): one for page in found for one in page}
    readings = 0

    async def marks() -> set[str]:
        nonlocal readings
        readings += 1
        if readings == 1:
            return set()  # when the objects are listed
        await eventually(rewritten, 20)
        return {named}

    async def rewritten() -> bool:
        # A store keeps whole seconds: written again is later by one at least.
        await store.put(kind, f"{tag} 1")
        pages = [page async for page in store.blobs.pages(kind)]
        now = {store.blobs.uri(one.key): one.modified for page in pages for one in page}
        return now[again].replace(microsecond=0) > listed[again].modified

    from datetime import timedelta

    (swept,) = await sweep(store.blobs, [kind], marks, grace=timedelta(0), apply=True)
    assert (swept.objects, swept.unreferenced, swept.deleted) == (3, 3, 1)
    assert await store.left() == {f"{tag} 0", f"{tag} 1"}
    assert gone


async def test_a_database_that_does_not_know_the_objects_deletes_none_until_it_adopts_them(
    store: Store, servers: Fleet
) -> None:
    backup = await store.connection.fetchval("select generation from object_owner")
    await store.put("datasets", f"of a lost database {secrets.token_hex(4)}")
    await store.aged()  # each collection is a generation, as every ten minutes are
    await store.connection.execute("update object_owner set generation = $1", backup)
    assert "it was restored from an older backup" in await store.refused()

    client = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
    client.remove_object(store.trainer.env["LORAFLEET_S3_BUCKET"], "trainer/owner")
    await store.connection.execute("update object_owner set made_at = now() + interval '1 hour'")
    assert "nothing tells whose the objects are" in await store.refused()
    await store.connection.execute("update object_owner set made_at = now() - interval '1 hour'")
    assert (await store.collect(apply=False))["refused"] == "", "all of them were written since it was made"

    await store.connection.execute("update object_owner set database_id = 'emptied', generation = 0")
    refused = await store.refused()
    assert "this is emptied" in refused
    assert "lorafleet gc --adopt trainer" in refused
    reply = await store.trainer.client.post("/v1/gc/adoption")
    assert (reply.status_code, reply.json()["database_id"]) == (200, "emptied")
    assert (await store.collect(apply=False))["refused"] == ""
    await store.collect(apply=True)
    assert await store.left() == set()


async def test_unusually_many_objects_go_only_where_their_number_is_confirmed(store: Store) -> None:
    tag = secrets.token_hex(4)
    await asyncio.gather(*(store.put("datasets", f"{tag} {n}") for n in range(FEW + 1)))
    await store.aged()
    doomed = sum(one["unreferenced"] for one in (await store.collect(apply=False))["kinds"])
    assert f"--at-most {doomed}" in await store.refused()
    await store.collect(apply=True, at_most=doomed)
    assert await store.left() == set()


async def test_a_superseded_data_set_goes_unless_a_training_needs_it_and_is_gone_by_name(store: Store) -> None:
    tag = secrets.token_hex(4)
    uris = [await store.put("datasets", f"{tag} {n}") for n in range(4)]
    ids = [await add_dataset(store, f"faq-{tag}", n + 1, uri) for n, uri in enumerate(uris)]
    await add_job(store, f"job-{tag}", [], dataset=ids[1])
    await add_job(store, f"open-{tag}", [], state="queued")
    names = v1.TrainingRequested(domain="d", dataset_id=ids[2]).model_dump(mode="json")
    await store.connection.execute("update jobs set request = $2 where job_id = $1", f"open-{tag}", json.dumps(names))
    removed = (await store.collect(apply=True))["datasets"]
    assert [one["dataset_id"] for one in removed] == [ids[0]], "trained on, requested, and the newest"

    async def gone() -> bool:
        await store.collect(apply=True)
        return await store.left() == {f"{tag} {n}" for n in range(1, 4)}

    await eventually(gone)
    reply = await store.trainer.client.get(f"/v1/datasets/{ids[0]}/records")
    assert (reply.status_code, "superseded" in reply.text) == (410, True)
    body = {"domain": "d", "dataset_id": ids[0]}
    refused = await store.trainer.client.post("/v1/jobs", json=body)
    assert (refused.status_code, "these were removed" in refused.text) == (422, True)


async def test_the_registrys_release_lets_a_jobs_files_go_and_nothing_continues_it(
    store: Store, jetstream: JetStreamContext
) -> None:
    tag = secrets.token_hex(4)
    uri = await store.put("artifacts", f"{tag} artifact")
    await add_job(store, f"job-{tag}", [uri])
    await store.aged()
    await store.collect(apply=True)
    assert await store.left() == {f"{tag} artifact"}
    event = v1.AdapterReleased(
        adapter_id="d-lora-v1.0.0", family="d-lora", domain="d", revision=9, job_id=f"job-{tag}", by="retention"
    )
    await Upstream(jetstream).publish(event)

    async def gone() -> bool:
        await store.collect(apply=True)
        return await store.left() == set()

    await eventually(gone)
