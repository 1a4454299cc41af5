"""Two replicas on the same servers: who answers, what passes between them, and what happens when one dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fleet_cli.stack.ports import choose
from fleet_events import v1
from services.inference.replicas.forwarding import ANSWERED_BY, HOP
from tests.conftest import RunningService, RunService
from tests.integration.inference.conftest import QUESTION, TOKENS, Made, Registry, eventually, text_of

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Replica:
    """A replica as the evaluator asks it: candidates are loaded where they are asked for, and only there."""

    name: str
    service: RunningService
    client: httpx.AsyncClient

    async def chat(self, model: str, **fields: Any) -> httpx.Response:
        headers = {HOP: "test"} if fields.pop("pinned", False) else {}
        return await self.client.post("/v1/chat/completions", json=body(model, **fields), headers=headers)

    async def holds(self, adapter_id: str) -> bool:
        states = (await self.service.client.get("/admin/adapters")).json()["adapters"]
        return states.get(adapter_id, {}).get("state") == "loaded"

    async def sees(self, other: str) -> dict[str, Any] | None:
        """What the other replica has announced."""
        seen = (await self.service.client.get("/admin/replicas")).json()["others"]
        return next((one for one in seen if one["name"] == other), None)

    async def sees_held(self, other: str, adapter_id: str) -> bool:
        seen = await self.sees(other)
        return bool(seen) and any(adapter_id in one["adapters"] for one in seen["serves"].values())

    async def metric(self, line: str) -> float:
        text = (await self.service.client.get("/metrics")).text
        return sum(float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line))


def body(model: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": TOKENS, **fields}


@pytest.fixture(scope="module")
async def replicas(
    run_service: RunService,
    settings_of_inference: dict[str, str],
    token_of: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Replica, Replica]]:
    async with AsyncExitStack() as stack:

        async def run(name: str) -> Replica:
            port = choose(("inference",), {})["inference"]
            settings = {
                **settings_of_inference,
                "LORAFLEET_FURTHER_BASE_MODELS": "{}",
                "LORAFLEET_SLOTS": "8",
                "LORAFLEET_CACHE_DIR": str(tmp_path_factory.mktemp(f"cache-{name}")),
                "LORAFLEET_REPLICA": name,
                "LORAFLEET_PORT": str(port),
                "LORAFLEET_REPLICA_URL": f"http://127.0.0.1:{port}",
                "LORAFLEET_ANNOUNCE": "0.5",
                "LORAFLEET_QUOTAS": '{"domains": {"bounded": {"month": {"requests": 1}}}}',
            }
            service = await stack.enter_async_context(run_service("inference", **settings))
            headers = {"Authorization": f"Bearer {token_of('evaluator')}"}
            client = httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60)
            return Replica(name, service, await stack.enter_async_context(client))

        a, b = await asyncio.gather(run("a"), run("b"))
        await eventually(lambda: a.sees("b"))
        await eventually(lambda: b.sees("a"))
        yield a, b


@pytest.fixture
async def held_at_b(
    replicas: tuple[Replica, Replica], registry: Registry, make_adapter: Callable[..., Made], domain: str
) -> Callable[[int], Any]:
    """`adapter, made = await held_at_b(seed)`: a candidate in a slot of b alone, and a knows that."""
    a, b = replicas

    async def load(seed: int) -> tuple[v1.Adapter, Made]:
        made = make_adapter(seed=seed)
        adapter = await registry.describe(made, domain)
        await registry.register(adapter)

        async def served(replica: Replica) -> bool:
            listed = (await replica.client.get("/v1/models")).json()["data"]
            return adapter.adapter_id in [one["id"] for one in listed]

        await eventually(lambda: served(a))
        await eventually(lambda: served(b))
        answer = await b.chat(adapter.adapter_id, pinned=True, max_tokens=1)
        assert answer.headers[ANSWERED_BY] == "b"
        await eventually(lambda: a.sees_held("b", adapter.adapter_id), seconds=3)
        return adapter, made

    return load


async def test_a_request_is_answered_by_the_replica_that_holds_its_adapter(
    replicas: tuple[Replica, Replica], held_at_b: Any, registry: Registry, expected: Any
) -> None:
    a, _ = replicas
    adapter, made = await held_at_b(201)
    answer = await a.chat(adapter.adapter_id)
    assert (answer.status_code, answer.headers[ANSWERED_BY]) == (200, "b")
    assert text_of(answer.json()) == expected(made)
    for model in (adapter.adapter_id, f"{adapter.adapter_id}:1"):
        allowed = await a.chat(model, fallback="tiny")
        assert (text_of(allowed.json()), allowed.headers[ANSWERED_BY]) == (expected(made), "b")
    assert not await a.holds(adapter.adapter_id)

    async def completed() -> Any:
        return [
            one for one in await registry.published(v1.GenerationCompleted) if one.generation_id == answer.json()["id"]
        ]

    [event] = await eventually(completed)
    assert (event.replica, event.caller) == ("b", "evaluator")
    vectors = await a.client.post("/v1/embeddings", json={"model": adapter.adapter_id, "input": "the tide"})
    assert (vectors.status_code, vectors.headers[ANSWERED_BY]) == (200, "b")
    continued = await a.client.post("/v1/completions", json={"model": adapter.adapter_id, "prompt": "The tide"})
    assert (continued.status_code, continued.headers[ANSWERED_BY]) == (200, "b")
    assert await a.metric('lorafleet_inference_forwarded_total{outcome="answered",reason="holder"}') == 5
    assert await a.metric('lorafleet_inference_affinity_total{outcome="hit"}') == 5


@pytest.mark.parametrize("domain", ["bounded"])
async def test_what_the_replica_that_refuses_tells_of_a_quota_is_passed_back(
    replicas: tuple[Replica, Replica], held_at_b: Any, domain: str
) -> None:
    adapter, _ = await held_at_b(209)
    refused = await replicas[0].chat(adapter.adapter_id)
    assert (refused.status_code, refused.headers[ANSWERED_BY]) == (429, "b")
    told = {name: refused.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining")}
    assert told == {"limit": "1", "remaining": "0"}


async def test_the_base_model_and_what_the_caller_may_not_use_are_answered_where_they_are_asked_for(
    replicas: tuple[Replica, Replica], held_at_b: Any, expected: Any
) -> None:
    a, _ = replicas
    adapter, _ = await held_at_b(202)
    answer = await a.chat("tiny")
    assert (text_of(answer.json()), answer.headers[ANSWERED_BY]) == (expected(), "a")
    refused = await a.service.client.post("/v1/chat/completions", json=body(adapter.adapter_id))
    assert (refused.status_code, refused.headers[ANSWERED_BY]) == (404, "a")


async def test_a_response_of_one_replica_is_read_continued_and_deleted_at_the_other(
    replicas: tuple[Replica, Replica],
) -> None:
    a, b = replicas
    here = {HOP: "test"}
    asked = {"model": "tiny", "input": QUESTION, "temperature": 0, "max_output_tokens": TOKENS}
    first = (await a.client.post("/v1/responses", json=asked, headers=here)).json()
    read = await b.client.get(f"/v1/responses/{first['id']}")
    assert read.json() == first
    goes_on = asked | {"previous_response_id": first["id"], "input": "Why?"}
    answers = [await one.client.post("/v1/responses", json=goes_on, headers=here) for one in replicas]
    assert [answer.headers[ANSWERED_BY] for answer in answers] == ["a", "b"]
    continued, other = (answer.json()["output"][0]["content"][0]["text"] for answer in answers)
    assert continued == other
    assert (await b.client.delete(f"/v1/responses/{first['id']}")).status_code == 200
    assert (await a.client.get(f"/v1/responses/{first['id']}")).status_code == 404


async def test_a_forwarded_request_is_answered_where_it_arrives(
    replicas: tuple[Replica, Replica], held_at_b: Any, expected: Any
) -> None:
    a, _ = replicas
    adapter, made = await held_at_b(203)
    answer = await a.chat(adapter.adapter_id, pinned=True)
    assert (text_of(answer.json()), answer.headers[ANSWERED_BY]) == (expected(made), "a")


async def test_a_stream_through_another_replica_is_the_stream_itself_piece_by_piece(
    replicas: tuple[Replica, Replica], held_at_b: Any
) -> None:
    adapter, _ = await held_at_b(204)
    streams = []
    for replica in replicas:
        fields = body(adapter.adapter_id, max_tokens=40, stream=True, stream_options={"include_usage": True})
        async with replica.client.stream("POST", "/v1/chat/completions", json=fields) as stream:
            assert (stream.status_code, stream.headers[ANSWERED_BY]) == (200, "b")
            assert stream.headers["content-type"].startswith("text/event-stream")
            pieces = [piece async for piece in stream.aiter_raw()]
        assert len(pieces) > 10, "it came in one piece"
        lines = b"".join(pieces).decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        streams.append([json.loads(line.removeprefix("data: ")) | {"id": "", "created": 0} for line in lines[:-2]])
    assert streams[0] == streams[1]


async def test_more_requests_than_one_replica_has_room_for_are_answered_by_both_with_the_same_weights(
    replicas: tuple[Replica, Replica], held_at_b: Any, expected: Any
) -> None:
    a, _ = replicas
    adapter, made = await held_at_b(209)
    answers = await asyncio.gather(*(a.chat(adapter.adapter_id, max_tokens=40) for _ in range(24)))
    assert {text_of(one.json()) for one in answers} == {expected(made, tokens=40)}
    by_b = sum(one.headers[ANSWERED_BY] == "b" for one in answers)
    # How many depends on which rows had ended when a request came; the bound itself is proved in the unit tests.
    assert 0 < by_b < 24
    assert await a.holds(adapter.adapter_id)


async def test_feedback_finds_the_rated_answer_at_the_replica_that_gave_it(
    replicas: tuple[Replica, Replica], registry: Registry, make_adapter: Callable[..., Made], domain: str
) -> None:
    a, b = replicas
    adapter = await registry.describe(make_adapter(seed=209), domain)
    await registry.activate(adapter)
    rated, mask = v1.RecordAnswers.RATED, v1.PersonalDataAction.MASK
    await registry.publish(
        v1.PolicyChanged(domain=domain, revision=1, by="test", record_answers=rated, personal_data=mask)
    )

    async def answered_by_b() -> Any:
        # Pinned: it is answered where it arrives. Not as the evaluator, whose questions are never recorded.
        answer = await b.service.client.post("/v1/chat/completions", json=body(adapter.family), headers={HOP: "test"})
        return answer.json() if answer.status_code == 200 else None

    answer = await eventually(answered_by_b)
    given = {"generation_id": answer["id"], "rating": 4}
    accepted = await a.service.client.post("/v1/feedback", json=given)
    assert (accepted.status_code, accepted.headers[ANSWERED_BY]) == (202, "b"), accepted.text
    [event] = [one for one in await registry.published(v1.GenerationRecorded) if one.generation_id == answer["id"]]
    assert event.answer == text_of(answer)
    [feedback] = [one for one in await registry.published(v1.FeedbackRecorded) if one.generation_id == answer["id"]]
    assert (feedback.rating, feedback.by) == (4, "admin")


async def test_a_client_that_goes_away_ends_the_request_at_the_replica_that_answers(
    replicas: tuple[Replica, Replica], held_at_b: Any, registry: Registry
) -> None:
    a, _ = replicas
    adapter, _ = await held_at_b(205)
    fields = body(adapter.adapter_id, max_tokens=450, stream=True)
    async with a.client.stream("POST", "/v1/chat/completions", json=fields) as stream:
        first = json.loads((await anext(stream.aiter_lines())).removeprefix("data: "))

    async def completed() -> Any:
        return [one for one in await registry.published(v1.GenerationCompleted) if one.generation_id == first["id"]]

    [event] = await eventually(completed)
    assert (event.replica, event.finish_reason) == ("b", "cancelled")
    assert event.completion_tokens < 450


async def test_a_replica_that_is_drained_sends_new_requests_to_the_other_and_gets_none(
    replicas: tuple[Replica, Replica], held_at_b: Any, expected: Any
) -> None:
    a, b = replicas
    adapter, made = await held_at_b(208)
    await b.service.client.post("/admin/drain", json={})
    try:
        for model, text in ((adapter.adapter_id, expected(made)), ("tiny", expected())):
            answer = await b.chat(model)
            assert (text_of(answer.json()), answer.headers[ANSWERED_BY]) == (text, "a")
        # Though it holds the adapter, and even in the moment before its neighbours know.
        answer = await a.chat(adapter.adapter_id)
        assert (answer.status_code, answer.headers[ANSWERED_BY]) == (200, "a")
        refused = await b.chat("tiny", pinned=True)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    finally:
        await b.service.client.post("/admin/drain", json={"draining": False})
    assert (await b.chat(adapter.adapter_id)).headers[ANSWERED_BY] == "b"


@pytest.mark.heavy
async def test_requests_for_a_replica_that_hangs_are_answered_here_once_it_is_forgotten(
    replicas: tuple[Replica, Replica], held_at_b: Any, expected: Any
) -> None:
    a, b = replicas
    adapter, made = await held_at_b(206)
    pid = b.service.single.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = await asyncio.wait_for(a.chat(adapter.adapter_id), timeout=12)
        assert (text_of(answer.json()), answer.headers[ANSWERED_BY]) == (expected(made), "a")
        assert await a.sees("b") is None
    finally:
        os.kill(pid, signal.SIGCONT)
    await eventually(lambda: a.sees("b"))


async def test_requests_for_a_replica_that_was_killed_are_answered_here_before_its_key_expires_and_after(
    replicas: tuple[Replica, Replica], held_at_b: Any, expected: Any
) -> None:
    a, b = replicas
    first, first_made = await held_at_b(207)
    before = await a.metric('lorafleet_inference_forwarded_total{outcome="unreachable"')
    await b.service.crash()
    answer = await a.chat(first.adapter_id)
    assert (text_of(answer.json()), answer.headers[ANSWERED_BY]) == (expected(first_made), "a")
    assert await a.metric('lorafleet_inference_forwarded_total{outcome="unreachable"') == before + 1
    again = await a.chat(first.adapter_id, stream=True)
    assert (again.status_code, again.headers[ANSWERED_BY]) == (200, "a")
    assert await a.metric('lorafleet_inference_forwarded_total{outcome="unreachable"') == before + 1
