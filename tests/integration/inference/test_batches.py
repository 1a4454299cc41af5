"""Files and batches with the official client, on real servers: run aside, isolated, taken over, cancelled, expired."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import openai
import pytest

from fleet_events import v1
from fleet_events.buckets import BATCHES
from fleet_kit.blobs import Blobs
from fleet_kit.key_value import KeyValue
from fleet_kit.settings import ServiceSettings
from services.inference.batches.records import BatchRecord, Counts, Owner, new_id
from services.inference.batches.results import answered as line_of
from services.inference.batches.results import part_of
from services.inference.batches.store import BatchStore
from tests.conftest import Mint, RunningService
from tests.integration.inference.conftest import QUESTION, TOKENS, answered, chat, eventually

pytestmark = pytest.mark.integration

CHAT: Any = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": QUESTION}]


class _Settings(ServiceSettings):
    pass


@pytest.fixture(scope="module")
def settings_of_inference(settings_of_inference: dict[str, str]) -> dict[str, str]:
    """A small server, and a lease that ends soon."""
    return settings_of_inference | {
        "LORAFLEET_BATCH_LEASE_SECONDS": "1",
        "LORAFLEET_BATCH_FILE_BYTES": "100000",
        "LORAFLEET_BATCH_LINES": "500",
        "LORAFLEET_BATCH_FILES": "20",
        "LORAFLEET_BATCHES_PER_DOMAIN": "2",
        "LORAFLEET_BATCH_ROWS": "4",
        "LORAFLEET_BATCH_CONCURRENCY": "4",
    }


@pytest.fixture
async def clients(inference: RunningService, mint: Mint, domain: str) -> AsyncIterator[Any]:
    """`clients("ann")`: the official client with a token of this subject, in this test's domain alone."""
    async with AsyncExitStack() as opened:

        def client(subject: str, *domains: str) -> openai.AsyncOpenAI:
            token = mint(["generate"], domains or [domain], subject=f"{subject}-{domain}")
            made = openai.AsyncOpenAI(base_url=f"{inference.url}/v1", api_key=token, max_retries=0)
            opened.push_async_callback(made.close)
            return made

        yield client


@pytest.fixture
async def store(jetstream: Any, inference: RunningService) -> BatchStore:
    """Files and batches as another replica sees them."""
    names: dict[str, Any] = {name.removeprefix("LORAFLEET_").lower(): value for name, value in inference.env.items()}
    settings = _Settings(**{name: value for name, value in names.items() if name in ServiceSettings.model_fields})
    return BatchStore(KeyValue(jetstream, BATCHES), Blobs("inference", settings))


def line(custom_id: str, model: str = "tiny", **body: Any) -> dict[str, Any]:
    fields = {"model": model, "messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0} | body
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": fields}


def content(*lines: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def begin(client: openai.AsyncOpenAI, *lines: Any, **fields: Any) -> Any:
    file = await client.files.create(file=("in.jsonl", content(*lines)), purpose="batch")
    return await client.batches.create(
        **{"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | fields
    )


async def at_end(client: openai.AsyncOpenAI, batch: Any) -> Any:
    async def end() -> Any:
        found = await client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed", "cancelled", "expired") else None

    return await eventually(end, 60)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """custom_id → line; each is there once."""
    if file_id is None:
        return {}
    read = [json.loads(one) for one in (await client.files.content(file_id)).text.splitlines()]
    found = {one["custom_id"]: one for one in read}
    assert len(found) == len(read)
    return found


async def test_a_batch_answers_as_online_requests_are_answered_and_refuses_line_by_line(
    clients: Any, inference: RunningService, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=61)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    client = clients("ann")
    foreign = line("foreign", model=f"{domain}y-lora")
    batch = await begin(client, line("own", adapter.family), line("base"), foreign, metadata={"run": "7"})
    assert (batch.status, batch.metadata, batch.request_counts.total) == ("validating", {"run": "7"}, 0)
    ended = await at_end(client, batch)
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("completed", 2, 1)
    assert ended.created_at <= ended.in_progress_at <= ended.finalizing_at <= ended.completed_at < ended.expires_at
    output, errors = await lines_of(client, ended.output_file_id), await lines_of(client, ended.error_file_id)
    own = output["own"]["response"]["body"]
    assert own["choices"][0]["message"]["content"] == expected(made)
    assert own["lorafleet"]["artifact_sha256"] == adapter.artifact.blob.sha256
    assert output["base"]["response"]["body"]["choices"][0]["message"]["content"] == expected()
    assert ended.usage.output_tokens == 2 * TOKENS
    refused = errors["foreign"]["response"]
    assert (refused["status_code"], refused["body"]["error"]["code"]) == (404, "model_not_found")

    async def published() -> bool:
        found = await registry.published(v1.GenerationCompleted)
        return f"ann-{domain}" in {one.caller for one in found if one.adapter_id == adapter.adapter_id}

    assert await eventually(published)
    listed = [one.id async for one in client.files.list(limit=1)]
    assert set(listed) == {batch.input_file_id, ended.output_file_id, ended.error_file_id}
    assert [one.id async for one in client.batches.list()] == [batch.id]
    assert (await client.files.retrieve(ended.output_file_id)).purpose == "batch_output"
    with pytest.raises(openai.ConflictError):
        await client.batches.cancel(batch.id)
    assert (await client.files.delete(ended.output_file_id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.content(ended.output_file_id)


async def test_a_file_with_a_faulty_line_runs_nothing_and_names_line_and_field(clients: Any) -> None:
    client = clients("ann")
    ended = await at_end(client, await begin(client, line("a"), line("a", temperature=9)))
    assert (ended.status, ended.output_file_id, ended.error_file_id) == ("failed", None, None)
    assert [(one.line, one.code, one.param) for one in ended.errors.data] == [
        (2, "duplicate_custom_id", "custom_id"),
        (2, "invalid_request", "body.temperature"),
    ]


async def test_bounds_and_other_callers_are_refused_in_openais_form(clients: Any, inference: RunningService) -> None:
    client, stranger, narrower = clients("ann"), clients("bob"), clients("ann", "elsewhere")
    with pytest.raises(openai.APIStatusError) as large:
        await client.files.create(file=("in.jsonl", b"x" * 150_000), purpose="batch")
    assert (large.value.status_code, large.value.param) == (413, "file")
    for bad, param in (({"purpose": "fine-tune"}, "purpose"), ({"purpose": "batch", "file": ("a", b"")}, "file")):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.files.create(**{"file": ("in.jsonl", content(line("a")))} | bad)
        assert refused.value.param == param
    with pytest.raises(openai.BadRequestError) as missing:
        await client.batches.create(input_file_id="file-0", endpoint=CHAT, completion_window="24h")
    assert (missing.value.code, missing.value.param) == ("file_not_found", "input_file_id")

    slow = [line(str(number), max_tokens=200, ignore_eos=True) for number in range(40)]
    first, second = await begin(client, *slow), await begin(client, *slow)
    with pytest.raises(openai.ConflictError) as full:
        await begin(client, line("a"))
    assert full.value.code == "too_many_batches"
    with pytest.raises(openai.ConflictError) as used:
        await client.files.delete(first.input_file_id)
    assert used.value.code == "file_in_use"
    for other in (stranger, narrower):
        for call in (
            other.batches.retrieve(first.id),
            other.batches.cancel(first.id),
            other.files.retrieve(first.input_file_id),
            other.files.content(first.input_file_id),
            other.files.delete(first.input_file_id),
        ):
            with pytest.raises(openai.NotFoundError):
                await call
        assert [one async for one in other.batches.list()] == [one async for one in other.files.list()] == []

    for batch in (first, second):
        assert (await client.batches.cancel(batch.id)).status in ("cancelling", "cancelled")
        ended = await at_end(client, batch)
        assert ended.status == "cancelled"
        output, errors = await lines_of(client, ended.output_file_id), await lines_of(client, ended.error_file_id)
        assert {*output, *errors} == {str(number) for number in range(40)}
        assert not output.keys() & errors.keys()
        assert {one["error"]["code"] for one in errors.values()} == {"batch_cancelled"}


async def test_online_requests_are_answered_while_a_batch_would_fill_every_row(
    clients: Any, inference: RunningService
) -> None:
    client = clients("ann")
    slow = [line(str(number), max_tokens=200, ignore_eos=True) for number in range(60)]
    batch = await begin(client, *slow)

    async def metric(name: str) -> float:
        found = (await inference.client.get("/metrics")).text.splitlines()
        return sum(float(one.rpartition(" ")[2]) for one in found if one.startswith(name))

    await eventually(lambda: metric("lorafleet_inference_batches_running"))
    interrupted = 'lorafleet_inference_batch_lines_total{outcome="interrupted"}'
    before = await metric(interrupted)

    async def burst() -> bool:
        answers = await asyncio.gather(*[chat(inference.client, "tiny") for _ in range(4)])
        assert {one.status_code for one in answers} == {200}
        return await metric(interrupted) > before

    await eventually(burst)
    await client.batches.cancel(batch.id)
    assert (await at_end(client, batch)).status == "cancelled"


async def test_lines_behind_a_deactivation_end_with_the_error_of_an_online_request(
    clients: Any, inference: RunningService, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await registry.describe(make_adapter(seed=61), domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    client = clients("ann")
    slow = [line(str(number), adapter.family, max_tokens=60, ignore_eos=True) for number in range(60)]
    batch = await begin(client, *slow)

    async def some() -> int:
        return int((await client.batches.retrieve(batch.id)).request_counts.completed)

    await eventually(some)
    await registry.deactivate(adapter)
    ended = await at_end(client, batch)
    online = (await chat(inference.client, adapter.family)).json()["error"]
    output, errors = await lines_of(client, ended.output_file_id), await lines_of(client, ended.error_file_id)
    assert (ended.status, len(output) + len(errors), online["code"]) == ("completed", 60, "adapter_not_active")
    assert output
    assert errors
    assert [one["response"]["body"]["error"] for one in errors.values()] == [online] * len(errors)


async def test_a_batch_of_a_revoked_token_is_cancelled_and_names_that(clients: Any, registry: Any, domain: str) -> None:
    leaked, own = clients("ann"), clients("ann")
    slow = [line(str(number), max_tokens=200, ignore_eos=True) for number in range(100)]
    batch, other = await begin(leaked, *slow), await begin(own, line("a"))
    token_id = jwt.decode(leaked.api_key, options={"verify_signature": False})["jti"]
    now = datetime.now(UTC)
    revoked = v1.TokenRevoked(
        named_by=v1.NamedBy.JTI, value=token_id, revoked_at=now, until=now + timedelta(days=2), by="ada", reason="leak"
    )
    await registry.publish(revoked)
    ended = await at_end(own, batch)
    assert (ended.status, [one.code for one in ended.errors.data]) == ("cancelled", ["credential_revoked"])
    output, errors = await lines_of(own, ended.output_file_id), await lines_of(own, ended.error_file_id)
    assert len(output) + len(errors) == 100
    assert {one["error"]["code"] for one in errors.values()} == {"batch_cancelled"}
    assert (await at_end(own, other)).status == "completed"
    with pytest.raises(openai.AuthenticationError):
        await leaked.batches.retrieve(batch.id)


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
