"""Forgotten people's stored responses, files and batches on real servers, as the user that inference is there."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from fleet_cli.stack import Fleet
from fleet_events.buckets import BATCHES, RESPONSES
from fleet_kit.blobs import Blobs
from fleet_kit.caller import Caller
from fleet_kit.key_value import KeyValue
from services.inference.batches.execution import Execution
from services.inference.batches.held import HeldBatch, LeaseLost
from services.inference.batches.lines import LineAt
from services.inference.batches.records import BatchRecord, FileRecord, Owner, new_id
from services.inference.batches.results import answered
from services.inference.batches.store import BatchStore
from services.inference.errors import NotFound
from services.inference.http.messages import ChatMessage
from services.inference.http.responses.store import KeptResponse, ResponseStore
from services.inference.settings import InferenceSettings
from tests.conftest import ServiceEnv

pytestmark = pytest.mark.integration


@pytest.fixture
async def bus(servers: Fleet) -> AsyncIterator[JetStreamContext]:
    client = await servers.connect_nats("inference")
    yield client.jetstream(timeout=5)
    await client.close()


@pytest.fixture
def settings(service_env: ServiceEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InferenceSettings:
    for name, value in (service_env("inference") | {"LORAFLEET_BASE_MODEL": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    return InferenceSettings()


@pytest.fixture
def anna() -> str:
    return f"anna-{secrets.token_hex(4)}"


async def _is_there(store: ResponseStore, response_id: str, caller: Caller) -> bool:
    try:
        await store.find(response_id, caller)
    except NotFound:
        return False
    return True


async def test_a_persons_responses_are_found_by_a_digest_and_go_with_those_that_continue_them(
    bus: JetStreamContext, anna: str
) -> None:
    bucket = KeyValue(bus, RESPONSES)
    writer, other = ResponseStore(bucket, b"secret"), ResponseStore(bucket, b"secret")
    caller = Caller(f"app-{anna}", frozenset(), frozenset({"*"}))
    turns = [ChatMessage(role="user", content="Hi")]
    named = {
        name: f"gen-{name}-{secrets.token_hex(4)}" for name in ("shop", "bank", "base", "continued", "app", "bert")
    }

    async def keep(name: str, person: str, domains: list[str], people: list[str]) -> KeptResponse:
        kept = KeptResponse(response={}, turns=turns, domains=domains, people=people)
        assert await writer.keep(named[name], caller, kept, person=person)
        return await other.find(named[name], caller)

    first = await keep("shop", anna, ["shop"], [])
    await keep("bank", anna, ["bank"], [])
    await keep("base", anna, [], [])
    await keep("continued", f"bert-{anna}", ["shop"], first.people)
    await keep("app", "", ["shop"], [])
    await keep("bert", f"bert-{anna}", ["shop"], [])
    assert not [key for key in await bucket.keys(">") if anna in key]

    async def left() -> set[str]:
        return {name for name, one in named.items() if await _is_there(other, one, caller)}

    assert await other.erase(anna, "shop") == 2
    assert await left() == {"bank", "base", "app", "bert"}
    assert await other.erase(anna, "shop") == 0
    assert await other.erase(anna, "*") == 2
    assert await left() == {"app", "bert"}
    # Where a request names nobody it is about its caller.
    assert await other.erase(caller.subject, "*") == 1
    assert await left() == {"bert"}
    await other.forget(named["bert"], caller)
    assert await other.erase(f"bert-{anna}", "*") == 0
    assert [
        key for key in await bucket.keys("of.*.*") if key.endswith(tuple(named.values())) and await bucket.get(key)
    ] == []


async def test_a_persons_files_and_batches_go_and_a_batch_that_runs_leaves_nothing_behind(
    bus: JetStreamContext, settings: InferenceSettings, anna: str
) -> None:
    store, other = (BatchStore(KeyValue(bus, BATCHES), Blobs("inference", settings)) for _ in range(2))
    now, body = int(time.time()), {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    lines = [{"custom_id": one, "method": "POST", "url": "/v1/chat/completions", "body": body} for one in "ab"]
    owners = {
        one: Owner(subject=subject, scopes=frozenset({"generate"}), domains=frozenset(domains))
        for one, subject, domains in (
            ("shop", anna, ["shop"]),
            ("both", anna, ["shop", "bank"]),
            ("bert", f"bert-{anna}", ["shop"]),
        )
    }
    files: dict[str, FileRecord] = {}
    for name, owner in owners.items():
        file_id = new_id("file-")
        blob = await store.put(file_id, b"\n".join(json.dumps(one).encode() for one in lines))
        fields = {"filename": "in.jsonl", "purpose": "batch", "created_at": now, "expires_at": now + 600}
        files[name] = FileRecord.model_validate({"id": file_id, "owner": owner, "blob": blob} | fields)
        await store.add_file(files[name])
    batch = BatchRecord(
        id=new_id("batch_"),
        owner=owners["shop"],
        input_file_id=files["shop"].id,
        source=files["shop"].blob,
        endpoint="/v1/chat/completions",
        created_at=now,
        expires_at=now + 60,
        holder="first",
    )
    await store.add(batch)
    kept = await store.read(batch)
    assert kept is not None

    async def answer(_held: HeldBatch, _path: Path, line: LineAt) -> Mapping[str, object]:
        if line.custom_id == "b":
            assert await other.erase(anna, "shop") == 2
        return answered(line.custom_id, 200, {})

    held = HeldBatch(store, kept, "first", 60)
    with pytest.raises(LeaseLost):
        await Execution(held, store, settings, answer, 1, is_revoked=lambda _: False).run()
    assert (held.erased, await store.read(batch), await store.parts(batch)) == (True, None, [])

    async def left() -> set[str]:
        held = [await store.files(one.caller, now) for one in owners.values()]
        return {name for name, file in files.items() if any(file in one for one in held)}

    assert await left() == {"both", "bert"}
    assert not await asyncio.to_thread(_objects, store, files["shop"])
    assert await other.erase(anna, "*") == 1
    assert await left() == {"bert"}
    assert await other.erase(anna, "*") == 0


def _objects(store: BatchStore, file: FileRecord) -> list[str]:
    bucket, _, key = file.blob.uri.removeprefix("s3://").partition("/")
    return [one.object_name or "" for one in store._blobs._client.list_objects(bucket, key)]
