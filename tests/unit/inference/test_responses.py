"""`/v1/responses` as OpenAI's client uses it: whole, streamed, with functions and forms, continued, and refused."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from tests.unit.inference.surface import HERMES, MODEL, byte_tokenizer, official, surface, text_of
from tests.unit.inference.test_tools import CALL, WEATHER

pytestmark = pytest.mark.unit

FUNCTION: Any = {"type": "function", "strict": True, **WEATHER["function"]}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def calling(answer: str) -> Any:
    return surface(answer, tokenizer=byte_tokenizer(HERMES))


async def events_of(client: openai.AsyncOpenAI, **request: Any) -> list[Any]:
    return [event async for event in await client.responses.create(model=MODEL, stream=True, **request)]


async def test_a_text_is_answered_as_a_chat_is() -> None:
    http, backend = surface("Noon.")
    client = official(http)
    answer = await client.responses.create(
        model=MODEL,
        input="When?",
        instructions="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=50,
        metadata={"trip": "7"},
    )
    assert answer.output_text == "Noon."
    assert (answer.status, answer.incomplete_details, answer.error) == ("completed", None, None)
    assert (answer.temperature, answer.top_p, answer.metadata) == (0.5, 0.9, {"trip": "7"})
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.usage.output_tokens_details.reasoning_tokens) == (5, 0)
    assert answer.usage.total_tokens == answer.usage.input_tokens + 5
    assert (answer.model_extra or {})["lorafleet"]["base_model"] == MODEL
    Response.model_validate(answer.model_dump(), strict=False)
    chat = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}],
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=50,
    )
    assert chat.choices[0].message.content == answer.output_text
    assert backend.requests[0] == backend.requests[1]


async def test_a_stream_has_the_events_of_openais_api_in_their_order() -> None:
    http, _ = surface("Noon.")
    events = await events_of(official(http), input=[{"role": "user", "content": "When?"}], max_output_tokens=50)
    for event in events:
        EVENTS.validate_python(event.model_dump(warnings=False))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Noon."
    last = events[-1].response
    assert (last.output_text, last.status, last.usage.output_tokens) == ("Noon.", "completed", 5)
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {last.output[0].id}
    assert events[0].response.id == last.id
    assert events[0].response.usage is None
    text = (await http.post("/v1/responses", json={"model": MODEL, "input": "When?", "stream": True})).text
    assert text.startswith("event: response.created\ndata: {")
    assert "[DONE]" not in text


async def test_an_answer_that_is_cut_off_is_incomplete() -> None:
    http, _ = surface("Noon.")
    answer = await official(http).responses.create(model=MODEL, input="When?", max_output_tokens=3)
    assert (answer.status, answer.output_text) == ("incomplete", "Noo")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"  # type: ignore[union-attr]
    events = await events_of(official(http), input="When?", max_output_tokens=3)
    assert events[-1].type == "response.incomplete"


async def test_a_stream_that_breaks_ends_in_a_failed_response() -> None:
    http, backend = surface("Noon.")

    async def breaks(_request: Any) -> Any:
        yield backend._token(78, 0)
        raise RuntimeError("the cores are on fire")

    backend._tokens = breaks
    events = await events_of(official(http), input="When?")
    assert events[-1].type == "response.failed"
    assert (events[-1].response.status, events[-1].response.error.message) == ("failed", "the answer broke off")
    assert events[-1].sequence_number == len(events) - 1


async def test_functions_are_called_answered_and_the_conversation_goes_on() -> None:
    http, backend = calling("Let me see.\n" + CALL)
    client = official(http)
    turns: list[Any] = [{"role": "user", "content": "Rain?"}]
    first = await client.responses.create(model=MODEL, input=turns, tools=[FUNCTION], max_output_tokens=200)
    text, call = first.output
    assert isinstance(text, ResponseOutputMessage)
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Bonn"})
    assert first.tools[0].name == "weather"  # type: ignore[union-attr]

    events = await events_of(client, input=turns, tools=[FUNCTION], max_output_tokens=200)
    for event in events:
        EVENTS.validate_python(event.model_dump(warnings=False))
    arguments = "".join(one.delta for one in events if one.type == "response.function_call_arguments.delta")
    [done] = [one for one in events if one.type == "response.function_call_arguments.done"]
    assert json.loads(arguments) == json.loads(done.arguments) == {"city": "Bonn"}
    items = [one.item.type for one in events if one.type == "response.output_item.done"]
    assert items == ["message", "function_call"]
    assert [one.output_index for one in events if one.type == "response.output_item.added"] == [0, 1]

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "dry"}
    await client.responses.create(model=MODEL, input=[*turns, *first.output, result], tools=[FUNCTION])
    whole = text_of(backend.requests[-1], byte_tokenizer(HERMES))
    continued: Any = await client.responses.create(
        model=MODEL, input=[result], previous_response_id=first.id, tools=[FUNCTION]
    )
    assert continued.previous_response_id == first.id
    assert text_of(backend.requests[-1], byte_tokenizer(HERMES)) == whole
    assert '{"name": "weather", "arguments": {"city": "Bonn"}}' in whole
    assert "tool\ndry" in whole


@pytest.mark.parametrize(
    ("choice", "chats"),
    [("required", "required"), ({"type": "function", "name": "weather"}, WEATHER), ("none", "none")],
)
async def test_the_choice_of_functions_is_the_chats(choice: Any, chats: Any) -> None:
    http, backend = calling("Dry.")
    body = {"model": MODEL, "input": "Rain?", "tools": [FUNCTION], "tool_choice": choice}
    answer = await http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    named = {"type": "function", "function": {"name": "weather"}} if chats is WEATHER else chats
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Rain?"}], "tools": [WEATHER]}
    assert (await http.post("/v1/chat/completions", json=chat | {"tool_choice": named})).status_code == 200
    ours, theirs = (one.grammar.form if one.grammar else None for one in backend.requests)
    assert ours == theirs
    assert (ours is None) is (choice == "none")


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_of_allowed_tools_alone_the_model_sees_and_calls_any(mode: str) -> None:
    http, backend = calling("Dry.")
    other = FUNCTION | {"name": "clock"}
    allowed: dict[str, Any] = {
        "type": "allowed_tools",
        "mode": mode,
        "tools": [{"type": "function", "name": "weather"}],
    }
    body = {"model": MODEL, "input": "Rain?", "tools": [FUNCTION, other], "tool_choice": allowed}
    answer = await http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["tool_choice"], len(answer.json()["tools"])) == (allowed, 2)
    assert (await http.post("/v1/responses", json=body | {"tools": [FUNCTION], "tool_choice": mode})).status_code == 200
    assert backend.requests[0].prompt_ids == backend.requests[1].prompt_ids
    ours, theirs = (one.grammar.form if one.grammar else None for one in backend.requests)
    assert ours == theirs
    refused = await http.post("/v1/responses", json=body | {"tools": [other]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tool_choice")
    assert "'weather'" in refused.json()["error"]["message"]


async def test_an_answer_has_the_form_that_is_requested() -> None:
    class Person(BaseModel):
        name: str

    http, backend = surface('{"name": "Ann"}')
    parsed = await official(http).responses.parse(model=MODEL, input="Who?", text_format=Person)
    assert parsed.output_parsed == Person(name="Ann")
    grammar = backend.requests[0].grammar
    assert grammar is not None
    assert json.loads(grammar.form.source)["properties"]["name"]["type"] == "string"
    answer = await official(http).responses.create(
        model=MODEL, input="Who?", text={"format": {"type": "json_object"}, "verbosity": "low"}
    )
    assert answer.text is not None
    assert answer.text.format is not None
    assert answer.text.format.type == "json_object"
    assert backend.requests[1].grammar is not None


async def test_log_probabilities_come_with_the_text_where_they_are_included() -> None:
    http, _ = surface("No")
    request: Any = {"input": "When?", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    answer = await official(http).responses.create(model=MODEL, **request)
    [part] = answer.output[0].content  # type: ignore[union-attr,misc]
    assert [(one.token, len(one.top_logprobs)) for one in part.logprobs or ()] == [("N", 2), ("o", 2)]  # type: ignore[union-attr]
    events = await events_of(official(http), **request)
    deltas = [one for one in events if one.type == "response.output_text.delta"]
    assert [one.token for delta in deltas for one in delta.logprobs] == ["N", "o"]


@pytest.mark.parametrize(
    ("given", "status", "param", "told"),
    [
        ({"tools": [{"type": "web_search"}]}, 422, "tools.0", "built-in tools"),
        (
            {"tool_choice": {"type": "custom", "name": "f"}},
            422,
            "tool_choice",
            "a function's type",
        ),
        ({"background": True}, 422, "background", "not supported here"),
        ({"conversation": "c"}, 422, "conversation", "previous_response_id"),
        ({"prompt": {"id": "p"}}, 422, "prompt", "instructions and input"),
        ({"truncation": "auto"}, 422, "truncation", "read whole"),
        ({"include": ["file_search_call.results"]}, 422, "include.0", "logprobs"),
        ({"input": [{"type": "computer_call"}]}, 422, "input.items.0", "not supported here"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            422,
            "input.items.0.message.content.parts.0",
            "only text parts",
        ),
        ({"max_tokens": 5}, 422, "max_tokens", "not a known parameter"),
        ({"input": []}, 400, "input", "no turns"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            400,
            "input",
            "no function call of call_id 'c'",
        ),
        ({"max_output_tokens": 10_000}, 400, "max_output_tokens", "max_output_tokens is 10000"),
        ({"input": "x" * 3000}, 400, "input", "tokens"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}},
            400,
            "text.format.schema",
            "text.format.schema: ",
        ),
        ({"tools": [FUNCTION]}, 422, "tools", "shows its model no tools"),
        ({"model": "ghost"}, 404, "model", "does not exist"),
    ],
)
async def test_what_cannot_be_answered_is_refused_naming_the_field(
    given: dict[str, Any], status: int, param: str, told: str
) -> None:
    http, backend = surface()
    refused = await http.post("/v1/responses", json={"model": MODEL, "input": "When?"} | given)
    assert refused.status_code == status, refused.text
    error = refused.json()["error"]
    assert error["param"] == param
    assert told in error["message"]
    assert backend.requests == []


async def test_other_routes_name_those_that_there_are() -> None:
    http, _ = surface()
    answer = (await http.post("/v1/responses", json={"model": MODEL, "input": "When?"})).json()
    missing = await http.post(f"/v1/responses/{answer['id']}/cancel")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "route_not_served")
    assert "GET and DELETE of /v1/responses/ID" in missing.json()["error"]["message"]
