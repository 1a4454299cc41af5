"""Files and batches with the official client, on real servers: run aside, isolated, taken over, cancelled, expired."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import openai
import pytest

from fleet_events import v1
from tests.conftest import Mint, RunningService
from tests.integration.inference.batches.conftest import CHAT, at_end, begin, content, line, lines_of
from tests.integration.inference.conftest import QUESTION, TOKENS, answered, chat, eventually

pytestmark = pytest.mark.integration


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


async def test_a_forgotten_persons_stored_responses_files_and_batches_are_deleted_at_any_replica(
    clients: Any, inference: RunningService, registry: Any, mint: Mint, domain: str
) -> None:
    app, ann = clients("app"), clients("ann")
    named = await app.responses.create(model="tiny", input=QUESTION, max_output_tokens=2, user=f"ann-{domain}")
    other = await app.responses.create(model="tiny", input=QUESTION, max_output_tokens=2, user=f"bob-{domain}")
    batch = await begin(ann, *[line(str(number), max_tokens=200, ignore_eos=True) for number in range(100)])
    erasure = {"erasure_id": f"er-{domain}", "subject": f"ann-{domain}", "domain": "*"}
    async with httpx.AsyncClient(base_url=inference.url) as client:

        async def forget(*domains: str, **fields: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {mint(['admin'], list(domains))}"}
            return await client.post("/v1/stored-erasures", json=erasure | fields, headers=headers)

        assert (await forget(domain)).status_code == 403
        assert (await forget("elsewhere", domain="elsewhere")).json()["deleted"] == 0
        done = await forget("*")
        assert (done.status_code, done.json()) == (200, {"erasure_id": f"er-{domain}", "deleted": 3})
    for gone in (
        app.responses.retrieve(named.id),
        ann.batches.retrieve(batch.id),
        ann.files.retrieve(batch.input_file_id),
    ):
        with pytest.raises(openai.NotFoundError):
            await gone
    assert (await app.responses.retrieve(other.id)).id == other.id

    async def ended() -> bool:
        found = (await inference.client.get("/metrics")).text.splitlines()
        return "lorafleet_inference_batches_running 0.0" in found

    assert await eventually(ended)
    assert [one async for one in ann.files.list()] == []
    events = [one for one in await registry.published(v1.SubjectErased) if one.erasure_id == f"er-{domain}"]
    assert [(one.service, one.deleted, one.part) for one in events] == [("inference", 0, 1), ("inference", 3, 1)]
