"""Batches whose replica died: continued by another, given up, with nothing lost but the lines in flight."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.inference.batches.records import BatchRecord, Counts, Owner, new_id
from services.inference.batches.results import answered as line_of
from services.inference.batches.results import part_of
from services.inference.batches.store import BatchStore
from tests.conftest import RunningService
from tests.integration.inference.batches.conftest import CHAT, at_end, begin, content, line, lines_of
from tests.integration.inference.conftest import eventually

pytestmark = pytest.mark.integration


async def test_the_batch_of_a_dead_replica_is_continued_with_the_lines_that_it_kept(
    clients: Any, store: BatchStore, domain: str, inference: RunningService
) -> None:
    client = clients("ann")
    file = await client.files.create(file=("in.jsonl", content(*map(line, "abcd"))), purpose="batch")
    owner = Owner(subject=f"ann-{domain}", scopes=frozenset({"generate"}), domains=frozenset({domain}))
    now = int(time.time())
    source = (await store.file(file.id, owner.caller, now)).blob
    batch = BatchRecord(
        id=new_id("batch_"),
        owner=owner,
        input_file_id=file.id,
        source=source,
        endpoint=CHAT,
        created_at=now,
        expires_at=now + 3600,
        status="in_progress",
        in_progress_at=now,
        counts=Counts(total=4),
        holder="dead.1",
    )
    # What a killed replica leaves: two lines in a part, and of one of them a second answer.
    await store.put(batch.id, part_of([line_of("a", 200, {"kept": True}), line_of("b", 422, {"error": {}})]))
    await store.put(batch.id, part_of([line_of("a", 200, {"kept": True})]))
    await store.add(batch)
    ended = await at_end(client, batch)
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("completed", 3, 1)
    output, errors = await lines_of(client, ended.output_file_id), await lines_of(client, ended.error_file_id)
    assert (set(output), set(errors)) == ({"a", "c", "d"}, {"b"})
    assert output["a"]["response"]["body"] == {"kept": True}
    assert await eventually(lambda: _gone(store, batch))

    # One whose window ended while nobody ran it.
    late = batch.model_copy(update={"id": new_id("batch_"), "expires_at": now - 1})
    await store.add(late)
    expired = await at_end(client, late)
    errors = await lines_of(client, expired.error_file_id)
    assert (expired.status, expired.output_file_id, set(errors)) == ("expired", None, set("abcd"))
    assert {one["error"]["code"] for one in errors.values()} == {"batch_expired"}


async def test_a_batch_that_took_five_replicas_with_it_is_given_up(
    clients: Any, store: BatchStore, domain: str
) -> None:
    client = clients("ann")
    file = await client.files.create(file=("in.jsonl", content(line("a"))), purpose="batch")
    owner = Owner(subject=f"ann-{domain}", scopes=frozenset({"generate"}), domains=frozenset({domain}))
    now = int(time.time())
    batch = BatchRecord(
        id=new_id("batch_"),
        owner=owner,
        input_file_id=file.id,
        source=(await store.file(file.id, owner.caller, now)).blob,
        endpoint=CHAT,
        created_at=now,
        expires_at=now + 3600,
        holder="dead.5",
        lost=4,
    )
    await store.add(batch)
    ended = await at_end(client, batch)
    assert (ended.status, [one.code for one in ended.errors.data]) == ("failed", ["replicas_lost"])
    assert (await lines_of(client, ended.error_file_id))["a"]["error"]["code"] == "batch_failed"


async def _gone(store: BatchStore, batch: BatchRecord) -> bool:
    return not await store.parts(batch)


@pytest.mark.heavy
async def test_a_replica_that_is_killed_loses_the_lines_in_flight_alone(
    clients: Any, inference: RunningService
) -> None:
    client = clients("ann")
    batch = await begin(client, *[line(str(number), max_tokens=100, ignore_eos=True) for number in range(100)])

    async def some() -> int:
        return int((await client.batches.retrieve(batch.id)).request_counts.completed)

    done = await eventually(some)
    await inference.crash()
    await inference.start()
    ended = await at_end(client, batch)
    assert (ended.status, ended.request_counts.completed) == ("completed", 100)
    assert done > 0
    assert len(await lines_of(client, ended.output_file_id)) == 100
