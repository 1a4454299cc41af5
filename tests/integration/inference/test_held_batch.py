"""A batch's record and parts on real servers, where two processes run it and where its end takes long."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_events.buckets import BATCHES
from fleet_events.v1 import ApiKeyRevoked, Blob
from fleet_kit.access_list import AccessList
from fleet_kit.api_keys import ApiKey
from fleet_kit.blobs import Blobs
from fleet_kit.key_value import KeyValue
from services.inference.batches import lifecycle
from services.inference.batches.admission import admit
from services.inference.batches.execution import Execution
from services.inference.batches.held import HeldBatch, LeaseLost
from services.inference.batches.lines import LineAt
from services.inference.batches.records import BatchRecord, Owner, new_id
from services.inference.batches.results import answered, part_of
from services.inference.batches.store import BatchStore, Kept
from services.inference.errors import Conflict
from services.inference.settings import InferenceSettings
from tests.conftest import ServiceEnv

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(service_env: ServiceEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InferenceSettings:
    for name, value in (service_env("inference") | {"LORAFLEET_BASE_MODEL": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    return InferenceSettings()


class _Stalled(BatchStore):
    """Of a process that stands still between its last line and its files, until another one has ended the batch."""

    def __init__(self, jetstream: JetStreamContext, settings: InferenceSettings) -> None:
        super().__init__(KeyValue(jetstream, BATCHES), Blobs("inference", settings))
        self.settings = settings
        self.other = BatchStore(KeyValue(jetstream, BATCHES), Blobs("inference", settings))

    async def parts(self, batch: BatchRecord) -> list[Blob]:
        if batch.status == "finalizing":
            kept = await self.other.read(batch)
            assert kept is not None
            taken = await self.other.write(lifecycle.taken(kept.batch, "second"), kept.revision)
            held = HeldBatch(self.other, taken, "second", 60)
            await Execution(held, self.other, self.settings, _answer, 1, is_revoked=lambda _: False).run()
        return await super().parts(batch)


async def _answer(held: HeldBatch, path: Path, line: LineAt) -> Mapping[str, object]:
    return answered(line.custom_id, 200, {"by": held.batch.holder})


async def _added(store: BatchStore, domain: str, **fields: Any) -> Kept:
    """A batch of two lines that "first" runs."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    lines = [{"custom_id": one, "method": "POST", "url": "/v1/chat/completions", "body": body} for one in "ab"]
    now = int(time.time())
    batch = BatchRecord(
        id=new_id("batch_"),
        owner=Owner(subject=domain, scopes=frozenset({"generate"}), domains=frozenset({domain})),
        input_file_id="file-1",
        source=await store.put("file-1", b"\n".join(json.dumps(one).encode() for one in lines)),
        endpoint="/v1/chat/completions",
        created_at=now,
        expires_at=now + 60,
        holder="first",
    ).model_copy(update=fields)
    await store.add(batch)
    kept = await store.read(batch)
    assert kept is not None
    return kept


async def test_a_process_that_another_one_overtook_writes_no_files(
    jetstream: JetStreamContext, settings: InferenceSettings, domain: str
) -> None:
    store = _Stalled(jetstream, settings)
    kept = await _added(store, domain)
    with pytest.raises(LeaseLost):
        await Execution(
            HeldBatch(store, kept, "first", 60), store, settings, _answer, 1, is_revoked=lambda _: False
        ).run()
    caller = kept.batch.owner.caller
    ended = (await store.batch(kept.batch.id, caller)).batch
    assert (ended.status, ended.counts.completed, ended.error_file_id) == ("completed", 2, None)
    (output,) = await store.files(caller, time.time())
    lines = [json.loads(one) for one in (await store.part(output.blob)).splitlines()]
    assert sorted((one["custom_id"], one["response"]["body"]["by"]) for one in lines) == [
        ("a", "first"),
        ("b", "first"),
    ]


async def test_the_beats_of_a_batch_stop_at_its_end_and_fail_once_another_process_has_it(
    jetstream: JetStreamContext, settings: InferenceSettings, domain: str
) -> None:
    store = _Stalled(jetstream, settings)
    held = HeldBatch(store, await _added(store, domain, status="cancelling"), "first", 0.2)
    beats = asyncio.create_task(held.keep())
    await held.change(lambda batch: lifecycle.ended(batch, int(time.time())))
    await asyncio.wait_for(beats, 10)

    kept = await _added(store, domain)
    lost = HeldBatch(store, kept, "first", 0.2)
    await store.write(lifecycle.taken(kept.batch, "second"), kept.revision)
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(lost.keep(), 10)
    await store.change(kept, lambda batch: lifecycle.ended(batch, int(time.time())))


async def test_no_line_is_computed_once_the_key_of_a_batch_is_revoked(
    jetstream: JetStreamContext, settings: InferenceSettings, domain: str
) -> None:
    store = BatchStore(KeyValue(jetstream, BATCHES), Blobs("inference", settings))
    access, key = AccessList("inference"), ApiKey.new()
    owner = Owner(subject=f"key:{key.key_id}", scopes=frozenset({"generate"}), domains=frozenset({domain}))
    computed = []

    async def answer(held: HeldBatch, path: Path, line: LineAt) -> Mapping[str, object]:
        computed.append(line.custom_id)
        await access.apply(ApiKeyRevoked(key_id=key.key_id, by="ada"))
        return await _answer(held, path, line)

    def is_revoked(batch: BatchRecord) -> bool:
        return access.is_revoked(batch.owner.subject, batch.owner.token_id, batch.created_at)

    kept = await _added(store, domain, owner=owner)
    await Execution(HeldBatch(store, kept, "first", 60), store, settings, answer, 1, is_revoked=is_revoked).run()
    ended = (await store.batch(kept.batch.id, owner.caller)).batch
    assert (computed, ended.counts.completed, ended.counts.failed) == (["a"], 1, 1)
    assert (ended.status, [one.code for one in ended.errors]) == ("cancelled", ["credential_revoked"])


async def test_batches_that_come_at_once_do_not_pass_the_bound_together(
    jetstream: JetStreamContext, settings: InferenceSettings, domain: str
) -> None:
    model = (await _added(BatchStore(KeyValue(jetstream, BATCHES), Blobs("inference", settings)), domain)).batch
    replicas = [BatchStore(KeyValue(jetstream, BATCHES), Blobs("inference", settings)) for _ in range(3)]

    async def create(number: int) -> bool:
        batch = model.model_copy(update={"id": new_id("batch_"), "holder": ""})
        try:
            await admit(batch, replicas[number % 3], 4)
        except Conflict as error:
            assert error.code == "too_many_batches"
            return False
        return True

    assert sum(await asyncio.gather(*(create(number) for number in range(9)))) == 3  # one is there already
    ended = (await replicas[0].batches(model.owner.caller))[-1]
    kept = await replicas[0].read(ended)
    assert kept is not None
    await replicas[0].change(kept, lambda batch: lifecycle.ended(batch, int(time.time())))
    assert [await create(number) for number in range(2)] == [True, False]


class _Corrupting(BatchStore):
    """Its part of "earlier" is damaged in the object store, before it is read at all or before the end."""

    def __init__(self, jetstream: JetStreamContext, settings: InferenceSettings, *, at_end: bool) -> None:
        self.blobs = Blobs("inference", settings)
        super().__init__(KeyValue(jetstream, BATCHES), self.blobs)
        self.at_end = at_end

    async def parts(self, batch: BatchRecord) -> list[Blob]:
        parts = await super().parts(batch)
        if self.at_end == (batch.status == "finalizing"):
            for blob in parts:
                if b"earlier" in await self.blobs.get(blob):
                    await asyncio.to_thread(self._damage, blob)
        return parts

    def _damage(self, blob: Blob) -> None:
        bucket, _, key = blob.uri.removeprefix("s3://").partition("/")
        self.blobs._client.put_object(bucket, key, io.BytesIO(b"damaged"), 7)


@pytest.mark.parametrize("found", ["before its lines are run", "at its end"])
async def test_a_stored_result_that_cannot_be_read_again_ends_in_no_circle(
    jetstream: JetStreamContext, settings: InferenceSettings, domain: str, found: str
) -> None:
    """Read before the lines are run, its line is computed again; read at the end, the line has failed by name."""
    store = _Corrupting(jetstream, settings, at_end=found == "at its end")
    kept = await _added(store, domain)
    await store.put(kept.batch.id, part_of([answered("a", 200, {"by": "earlier"})]))
    await Execution(HeldBatch(store, kept, "first", 60), store, settings, _answer, 1, is_revoked=lambda _: False).run()
    caller = kept.batch.owner.caller
    ended = (await store.batch(kept.batch.id, caller)).batch
    files = {one.id: json.loads((await store.part(one.blob)).splitlines()[0]) for one in await store.files(caller, 0)}
    if found == "at its end":
        assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 1, 1)
        assert files[str(ended.error_file_id)]["error"]["code"] == "batch_lost"
    else:
        assert (ended.status, ended.counts.completed, ended.error_file_id) == ("completed", 2, None)
