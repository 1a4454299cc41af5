"""Stored responses: read, continued and deleted by their caller alone, and within bounds."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from fleet_kit.auth import Caller
from services.inference.http import api
from services.inference.http.messages import ChatMessage
from services.inference.http.responses.replay import replayed
from services.inference.http.responses.store import MOST_BYTES, MOST_PEOPLE, KeptResponse, ResponseStore
from tests.unit.inference.surface import MODEL, Bucket, application, official, surface, text_of
from tests.unit.inference.test_responses import FUNCTION, calling, events_of
from tests.unit.inference.test_tools import CALL

pytestmark = pytest.mark.unit


async def test_a_stored_response_is_read_continued_and_deleted_by_its_caller() -> None:
    http, backend = surface("Noon.")
    client = official(http)
    first = await client.responses.create(model=MODEL, input="When is high tide?", instructions="Be brief.")
    assert (await client.responses.retrieve(first.id)).output_text == "Noon."
    events = await events_of(client, input="And low tide?", previous_response_id=first.id)
    prompt = text_of(backend.requests[-1])
    assert prompt.startswith(
        "<|im_start|>user\nWhen is high tide?<|im_end|>\n<|im_start|>assistant\nNoon.<|im_end|>\n"
        "<|im_start|>user\nAnd low tide?<|im_end|>\n"
    )
    second = events[-1].response
    third = await client.responses.create(model=MODEL, input="Why?", previous_response_id=second.id)
    assert text_of(backend.requests[-1]).count("<|im_start|>assistant\nNoon.") == 2
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as gone:
        await client.responses.retrieve(first.id)
    assert gone.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input="Why?", previous_response_id=first.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    assert (await client.responses.retrieve(third.id)).id == third.id


async def sent(http: httpx.AsyncClient, method: str, path: str, **content: Any) -> list[dict[str, Any]]:
    """The events of a stream."""
    answer = await http.request(method, path, **content)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("answer", "request_", "tokens"),
    [
        ("Noon.", {"include": ["message.output_text.logprobs"], "top_logprobs": 2}, 200),
        ("Noon.", {}, 3),
        ("Let me see.\n" + CALL, {"tools": [FUNCTION]}, 200),
        (CALL + CALL, {"tools": [FUNCTION]}, 200),
        ("", {}, 200),
    ],
)
async def test_a_stored_response_is_streamed_as_the_events_in_which_it_came(
    answer: str, request_: dict[str, Any], tokens: int
) -> None:
    """A lost stream is continued by number; a response that came whole has the events that it would have had."""
    http, _ = calling(answer)
    body = {"model": MODEL, "input": "Rain?", "max_output_tokens": tokens, **request_}
    live = await sent(http, "POST", "/v1/responses", json=body | {"stream": True})
    path = f"/v1/responses/{live[0]['response']['id']}"
    assert await sent(http, "GET", path, params={"stream": True}) == live
    assert await sent(http, "GET", path, params={"stream": True, "starting_after": 3}) == live[4:]
    whole = (await http.post("/v1/responses", json=body)).json()
    of_whole = await sent(http, "GET", f"/v1/responses/{whole['id']}", params={"stream": True})
    assert [one["type"] for one in of_whole] == [one["type"] for one in live]
    assert [one.get("delta") for one in of_whole] == [one.get("delta") for one in live]
    assert of_whole[-1]["response"] == whole


async def test_a_response_of_an_earlier_release_is_streamed_in_one_piece_each() -> None:
    http, _ = calling("Let me see.\n" + CALL)
    response = (
        await http.post(
            "/v1/responses", json={"model": MODEL, "input": "Rain?", "tools": [FUNCTION], "max_output_tokens": 200}
        )
    ).json()
    events = [
        json.loads(one.partition("data: ")[2]) for one in replayed(KeptResponse(response=response, turns=[]), None)
    ]
    deltas = [(one["type"], one["delta"]) for one in events if "delta" in one]
    assert deltas == [
        ("response.output_text.delta", "Let me see.\n"),
        ("response.function_call_arguments.delta", '{"city": "Bonn"}'),
    ]
    assert events[-1]["response"] == response


async def test_a_place_in_a_stream_is_refused_without_one() -> None:
    http, _ = surface("Noon.")
    made = (await http.post("/v1/responses", json={"model": MODEL, "input": "When?"})).json()
    refused = await http.get(f"/v1/responses/{made['id']}", params={"starting_after": 3})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "starting_after")


async def test_the_input_items_of_a_stored_response_are_all_that_it_answered() -> None:
    http, _ = calling("Let me see.\n" + CALL)
    client = official(http)
    turns: list[Any] = [{"role": "user", "content": "Rain?"}]
    first = await client.responses.create(model=MODEL, input=turns, tools=[FUNCTION], max_output_tokens=200)
    [only] = (await client.responses.input_items.list(first.id)).data
    assert (only.type, only.role, only.content[0].text) == ("message", "user", "Rain?")  # type: ignore[union-attr, index]
    result: list[Any] = [{"type": "function_call_output", "call_id": first.output[1].call_id, "output": "dry"}]  # type: ignore[union-attr]
    second = await client.responses.create(
        model=MODEL, input=result, tools=[FUNCTION], previous_response_id=first.id, max_output_tokens=200
    )
    listed = [one async for one in client.responses.input_items.list(second.id, order="asc", limit=1)]
    assert [one.type for one in listed] == ["message", "message", "function_call", "function_call_output"]
    newest = await client.responses.input_items.list(second.id, limit=2)
    assert [one.type for one in newest.data] == ["function_call_output", "function_call"]
    assert newest.has_more
    assert newest.data[0].output == "dry"  # type: ignore[union-attr]
    sent_back: list[Any] = [one.to_dict(mode="json") for one in listed]
    assert (await client.responses.create(model=MODEL, input=sent_back, tools=[FUNCTION])).id
    with pytest.raises(openai.NotFoundError):
        await client.responses.input_items.list("gen-unknown")
    with pytest.raises(openai.BadRequestError):
        await client.responses.input_items.list(second.id, after="in_99_x")


async def test_an_item_of_a_stored_response_may_be_referred_to() -> None:
    http, backend = calling("Let me see.\n" + CALL)
    client = official(http)
    turns: list[Any] = [{"role": "user", "content": "Rain?"}]
    first = await client.responses.create(model=MODEL, input=turns, tools=[FUNCTION], max_output_tokens=200)
    result = {"type": "function_call_output", "call_id": first.output[1].call_id, "output": "dry"}  # type: ignore[union-attr]
    references: list[Any] = [{"type": "item_reference", "id": item.id} for item in first.output]
    for items in ([*first.output, result], [*references, result], [{"id": references[0]["id"]}, references[1], result]):
        await client.responses.create(model=MODEL, input=[*turns, *items], tools=[FUNCTION])
    assert len({tuple(request.prompt_ids) for request in backend.requests[1:]}) == 1
    for missing in ("msg_7_" + first.id, "msg", "msg_0_gen-unknown"):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=MODEL, input=[*turns, {"type": "item_reference", "id": missing}])
        assert (refused.value.code, refused.value.param) == ("item_not_found", "input")


async def test_a_response_that_is_not_to_be_stored_or_cannot_be_tells_so_and_is_not_found() -> None:
    app, _ = application("Noon.")
    bucket = Bucket()
    parts = app.dependency_overrides[api._parts]()
    parts.responses = ResponseStore(bucket, b"secret")  # type: ignore[arg-type]
    import httpx

    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inference")
    client = official(http)
    assert (await client.responses.create(model=MODEL, input="When?", store=False)).model_extra is not None
    assert bucket.values == {}
    bucket.away = True
    answer = await http.post("/v1/responses", json={"model": MODEL, "input": "When?"})
    assert answer.json()["store"] is False
    unreachable = await http.get(f"/v1/responses/{answer.json()['id']}")
    assert (unreachable.status_code, unreachable.json()["error"]["code"]) == (503, "store_unavailable")


async def test_the_bus_sees_no_text_and_no_other_subject_or_domain_opens_a_response() -> None:
    bucket = Bucket()
    store = ResponseStore(bucket, b"secret")  # type: ignore[arg-type]
    anna = Caller("anna", frozenset(), frozenset({"shop"}))
    turns = [ChatMessage(role="user", content="My number is 0171 5550123.")]
    assert await store.keep("gen-1", anna, KeptResponse(response={"id": "gen-1"}, turns=turns, domains=["shop"]))
    assert b"0171" not in bucket.values["gen-1"]
    assert (await store.find("gen-1", anna)).turns == turns
    bucket.values["gen-2"] = bucket.values["gen-1"]
    for caller, response_id in (
        (Caller("bert", frozenset(), frozenset({"*"})), "gen-1"),
        (Caller("anna", frozenset(), frozenset({"bank"})), "gen-1"),
        (anna, "gen-2"),
        (anna, "gen-3"),
        (anna, "a.b.>"),
    ):
        with pytest.raises(Exception, match="does not exist"):
            await store.find(response_id, caller)
        with pytest.raises(Exception, match="does not exist"):
            await store.forget(response_id, caller)
    with pytest.raises(Exception, match="does not exist"):
        await ResponseStore(bucket, b"another").find("gen-1", anna)  # type: ignore[arg-type]


async def test_a_conversation_beyond_the_room_of_a_message_is_not_kept() -> None:
    import random

    bucket = Bucket()
    store = ResponseStore(bucket, b"secret")  # type: ignore[arg-type]
    noise = random.Random(1).randbytes(MOST_BYTES).hex()
    kept = KeptResponse(response={}, turns=[ChatMessage(role="user", content=noise)])
    caller = Caller("anna", frozenset(), frozenset())
    assert not await store.keep("gen-1", caller, kept)
    crowd = KeptResponse(response={}, turns=[], people=[f"{number:032x}" for number in range(MOST_PEOPLE)])
    assert not await store.keep("gen-1", caller, crowd)
    assert bucket.values == {}
