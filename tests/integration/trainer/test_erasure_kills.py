"""A trainer that is killed between any two steps of an erasure ends it all the same, in the same state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fleet_events import v1
from fleet_kit.errors import BlobMissing
from tests.conftest import RunningService
from tests.integration.trainer.building import as_jsonl, built, upload
from tests.integration.trainer.conftest import Bench, eventually
from tests.integration.trainer.erasing import about, build, erased, forget, person, recorded, traces
from tests.integration.trainer.erasing import registry as registry
from tests.integration.trainer.erasing import registry_rows as registry_rows
from tests.integration.trainer.erasing import router as router
from tests.integration.trainer.erasing import rows as rows

pytestmark = [pytest.mark.integration, pytest.mark.heavy]

GATE = 0x14
"""Of the advisory lock that a step waits for."""
STEPS = {
    "data sets are removed, their files are there": ("update on jobs for each statement", ""),
    "uploads are written again, their rows name the old file": (
        "update on uploads for each row",
        "when (new.uri <> old.uri)",
    ),
    "the old file is deleted, the row names it still": (
        "update on uploads for each row",
        "when (old.former_uri is not null and new.former_uri is null)",
    ),
    "messages are gone, the rows are there": ("delete on subject_records for each statement", ""),
    "everything is gone, the proof is not written": (
        "update on erasures for each row",
        "when (new.deleted <> old.deleted)",
    ),
}
"""What was done when the worker is killed → the write that it does not get done."""
LATE = {
    **{step: write for step, write in STEPS.items() if "uploads" in write[0]},
    "nothing of the person is there, the upload is not noted as looked at": (
        "update on uploads for each row",
        "when (new.looked_at is distinct from old.looked_at)",
    ),
}
"""The same of a sweep that looks at a file which was uploaded later."""


@asynccontextmanager
async def stopped_at(rows: asyncpg.Connection, step: str) -> AsyncIterator[None]:
    """The worker waits in a step as long as this is open."""
    write, when = (STEPS | LATE)[step]
    await rows.execute(
        f"create function at_the_gate() returns trigger language plpgsql as"
        f" $$ begin perform pg_advisory_xact_lock({GATE}); return coalesce(new, old); end $$;"
        f"create trigger gate before {write} {when} execute function at_the_gate();"
    )
    await rows.execute(f"select pg_advisory_lock({GATE})")
    try:
        yield
    finally:
        await rows.execute(f"select pg_advisory_unlock({GATE}); drop function at_the_gate cascade")


async def waiting(rows: asyncpg.Connection) -> None:
    """The worker has come to the step."""
    query = "select exists (select from pg_locks where locktype = 'advisory' and objid = $1 and not granted)"
    await eventually(lambda: rows.fetchval(query, GATE))


def naming(bench: Bench, name: str) -> list[str]:
    """Objects of this domain's uploads, and files of the trainer's folder, that the name stands in."""
    client, bucket = bench.blobs._client, bench.blobs._bucket
    listed = client.list_objects(bucket, prefix=f"trainer/uploads/{bench.domain}/", recursive=True)
    names = [one.object_name for one in listed if one.object_name]
    objects = [one for one in names if name.encode() in client.get_object(bucket, one).data]
    files = [one for one in Path(bench.trainer.env["LORAFLEET_CACHE_DIR"]).rglob("*") if one.is_file()]
    return objects + [str(one) for one in files if name.encode() in one.read_bytes()]


@pytest.mark.requirement("LA-1.7")
@pytest.mark.parametrize("step", STEPS)
async def test_an_erasure_whose_worker_is_killed_is_taken_up_again_and_ends_as_one_that_was_not(
    bench: Bench, registry: RunningService, rows: asyncpg.Connection, step: str
) -> None:
    name, other = person(), person()
    lines = [
        {"prompt": f"Where does {one} live, {number}?", "completion": f"{one} lives at {number}.", "subject": one}
        for one in (name, other)
        for number in range(2)
    ]
    source = await upload(bench, "people.jsonl", as_jsonl(lines))
    held, _ = await built(bench, source)
    await bench.upstream.publish(v1.SampleRecorded(domain=bench.domain, **lines[0]))

    async def recorded() -> Any:
        return await rows.fetchval("select count(*) from samples where domain = $1", bench.domain)

    await eventually(recorded)
    file = "select uri, coalesce(sha256, upload_id) as sha256, bytes from uploads where upload_id = $1"
    before = v1.Blob.model_validate(dict((await rows.fetchrow(file, source["upload_id"])) or {}))
    async with stopped_at(rows, step):
        asked = await forget(bench, name)
        await waiting(rows)
        await bench.trainer.crash()
    await bench.trainer.start()
    done = await erased(bench, asked["erasure_id"])
    counts = {kind: done["deleted"][kind]["count"] for kind in ("samples", "datasets", "uploads")}
    assert counts == {"samples": 1, "datasets": 1, "uploads": 1}
    assert done["deleted"]["uploads"]["rewritten"] == [source["upload_id"]]
    assert done["datasets"] == [held]
    dataset = await rows.fetchrow("select uri, sha256, bytes from datasets where dataset_id = $1", held)
    for gone in (before, v1.Blob.model_validate(dict(dataset or {}))):
        with pytest.raises(BlobMissing):
            await bench.blobs.get(gone)
    after = v1.Blob.model_validate(dict((await rows.fetchrow(file, source["upload_id"])) or {}))
    assert await bench.blobs.get(after) == as_jsonl(lines[2:])
    assert await rows.fetchval("select count(*) from uploads where former_uri is not null") == 0
    assert await traces(bench, name, rows) == []
    again, records = await built(bench, source)
    assert (again != held, len(records)) == (True, 2)


@pytest.mark.parametrize("table", ["datasets", "subject_records", "preferences"])
async def test_a_worker_that_is_killed_in_any_phase_leaves_an_erasure_that_ends_all_the_same(
    bench: Bench,
    registry: RunningService,
    rows: asyncpg.Connection,
    registry_rows: asyncpg.Connection,
    table: str,
) -> None:
    """Killed before the files, between files and messages, and in the transaction of the rows, messages being gone."""
    name = person()
    for number in range(5):
        await bench.upstream.publish(about(bench.domain, name, number))
    await recorded(rows, bench.domain, 5)
    await build(bench, "of-people")
    holder = await asyncpg.connect(
        bench.trainer.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "trainer"}
    )
    held = holder.transaction()
    await held.start()
    await holder.execute(f"lock table {table} in access exclusive mode")
    asked = await forget(bench, name)

    async def waits() -> bool:
        return bool(
            await rows.fetchval(
                "select exists (select from pg_locks where not granted and relation = $1::regclass)", table
            )
        )

    await eventually(waits)
    await bench.trainer.crash()
    await held.rollback()
    await holder.close()
    await bench.trainer.start()
    done = await erased(bench, asked["erasure_id"])
    assert {kind: done["deleted"][kind]["count"] for kind in ("samples", "datasets")} == {"samples": 5, "datasets": 1}
    assert await traces(bench, name, rows, registry_rows) == []


@pytest.mark.requirement("LA-1.7")
@pytest.mark.parametrize("step", LATE)
async def test_a_file_that_is_uploaded_later_loses_its_rows_about_the_person_though_the_sweep_is_killed(
    bench: Bench, registry: RunningService, rows: asyncpg.Connection, step: str
) -> None:
    name, other = person(), person()
    asked = await forget(bench, name)
    await erased(bench, asked["erasure_id"])
    lines = [
        {"prompt": f"Where does {one} live, {number}?", "completion": f"{one} lives at {number}.", "subject": one}
        for one in (name, other)
        for number in range(2)
    ]
    late = await upload(bench, "late.jsonl", as_jsonl(lines))
    assert naming(bench, name)
    async with stopped_at(rows, step):
        await bench.trainer.crash()
        await bench.trainer.start()  # it sweeps
        await waiting(rows)
        await bench.trainer.crash()
    await bench.trainer.start()
    row = "select erased_by, former_uri, looked_at from uploads where upload_id = $1"

    async def swept() -> bool:
        found = await rows.fetchrow(row, late["upload_id"])
        assert found is not None
        return (found["erased_by"], found["former_uri"]) == ([asked["erasure_id"]], None) and found["looked_at"]

    await eventually(swept)
    assert naming(bench, name) == []
    assert await traces(bench, name, rows) == []
    _, records = await built(bench, late)
    assert len(records) == 2, "the other person's are there"
