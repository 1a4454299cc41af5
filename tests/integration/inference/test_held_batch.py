"""A batch's record and parts on real servers, where two processes run it and where its end takes long."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from fleet_events.buckets import BATCHES
from fleet_events.v1 import Blob
from fleet_kit.blobs import Blobs
from fleet_kit.key_value import KeyValue
from services.inference.batches import lifecycle
from services.inference.batches.execution import Execution
from services.inference.batches.held import HeldBatch, LeaseLost
from services.inference.batches.lines import LineAt
from services.inference.batches.records import BatchRecord, Owner, new_id
from services.inference.batches.results import answered
from services.inference.batches.store import BatchStore, Kept
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
            await Execution(held, self.other, self.settings, _answer, 1).run()
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
        await Execution(HeldBatch(store, kept, "first", 60), store, settings, _answer, 1).run()
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
