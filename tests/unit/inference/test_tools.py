"""Tools over HTTP: the model is shown them by its own template, and its calls come back in OpenAI's form."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.unit.inference.surface import HERMES, MODEL, byte_tokenizer, chat, surface

pytestmark = pytest.mark.unit

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tomorrow's",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'


def calling(answer: str) -> Any:
    return surface(answer, tokenizer=byte_tokenizer(HERMES))


async def test_a_call_comes_in_openais_form_whole_and_in_a_stream() -> None:
    http, backend = calling("Let me see.\n" + CALL)
    client = openai.AsyncOpenAI(http_client=http, base_url="http://inference/v1", api_key="-", max_retries=0)
    request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Rain?"}], "tools": [WEATHER]}
    whole = (await client.chat.completions.create(**request, max_tokens=200)).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content == "Let me see.\n"
    assert whole.message.tool_calls is not None
    [call] = whole.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Bonn"})

    content, arguments, names, reason = "", "", [], None
    async for chunk in await client.chat.completions.create(**request, max_tokens=200, stream=True):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for part in delta.tool_calls or ():
            assert part.function is not None
            names += [part.function.name] if part.function.name else []
            arguments += part.function.arguments or ""
        reason = chunk.choices[0].finish_reason or reason
    assert (content, names, json.loads(arguments), reason) == (
        "Let me see.\n",
        ["weather"],
        {"city": "Bonn"},
        "tool_calls",
    )
    prompt = byte_tokenizer(HERMES).decode(backend.requests[-1].prompt_ids)
    assert "Tomorrow's" in prompt


async def test_a_call_and_its_result_are_sent_back_as_they_came() -> None:
    http, backend = calling("Dry.")
    turns = [
        {"role": "user", "content": "Rain?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "a1b2c3d4e",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Bonn"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": "dry"},
    ]
    answer = await http.post("/v1/chat/completions", json=chat(*turns, tools=[WEATHER]))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Dry."
    prompt = byte_tokenizer(HERMES).decode(backend.requests[-1].prompt_ids)
    assert '{"name": "weather", "arguments": {"city": "Bonn"}}' in prompt
    assert "dry" in prompt


@pytest.mark.parametrize(
    ("choice", "calls"),
    [
        ("auto", True),
        ("required", True),
        ({"type": "function", "function": {"name": "weather"}}, True),
        ("none", False),
    ],
)
async def test_the_choice_of_tools_sets_the_form_of_the_answer(choice: Any, calls: bool) -> None:
    http, backend = calling("Dry.")
    answer = await http.post("/v1/chat/completions", json=chat(tools=[WEATHER], tool_choice=choice))
    assert answer.status_code == 200, answer.text
    [request] = backend.requests
    assert (request.grammar is not None) is calls
    if request.grammar is not None:
        assert ("TEXT" in request.grammar.form.source.splitlines()[2]) is (choice == "auto")
    prompt = byte_tokenizer(HERMES).decode(request.prompt_ids)
    assert ("weather" in prompt) is calls


@pytest.mark.parametrize(
    ("given", "param", "told"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools", "'weather' twice"),
        ({"tool_choice": "required"}, "tool_choice", "requires a call of what tools does not have"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "clock"}}},
            "tool_choice",
            "requires a call of what tools does not have",
        ),
        ({"tools": [WEATHER], "guided_choice": ["yes"]}, "guided_choice", "send one of them"),
        (
            {
                "tools": [WEATHER],
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}},
            },
            "response_format.json_schema.schema",
            "Unimplemented keys",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]},
            "tools",
            "Unimplemented keys",
        ),
    ],
)
async def test_tools_that_cannot_be_called_are_refused_by_name(given: dict[str, Any], param: str, told: str) -> None:
    http, backend = calling("Dry.")
    refused = await http.post("/v1/chat/completions", json=chat(**given))
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == param
    assert told in error["message"]
    assert backend.requests == []


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_an_answer_calls_or_has_the_form_that_is_set_beside_the_tools(choice: str) -> None:
    http, backend = calling('{"n": 1}')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await http.post(
        "/v1/chat/completions", json=chat(tools=[WEATHER], tool_choice=choice, response_format=form)
    )
    assert answer.status_code == 200, answer.text
    grammar = backend.requests[0].grammar
    assert grammar is not None
    tokenizer = byte_tokenizer(HERMES)

    def holds(text: str) -> bool:
        constraint = grammar.begin()
        try:
            for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
                constraint.accept(token)
        except ArithmeticError:
            return False
        return True

    assert holds(CALL)
    assert not holds("Dry")
    assert holds('{"n": 1}') is (choice == "auto")


async def test_a_back_end_that_cannot_hold_calls_refuses_tools_and_takes_a_choice_of_none() -> None:
    http, backend = calling("Dry.")
    backend.holds_calls = False
    refused = await http.post("/v1/chat/completions", json=chat(tools=[WEATHER]))
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "tools")
    assert refused.json()["error"]["code"] == "tools_unsupported"
    assert backend.requests == []
    taken = await http.post("/v1/chat/completions", json=chat(tools=[WEATHER], tool_choice="none"))
    assert taken.status_code == 200


async def test_a_model_whose_template_knows_no_tools_refuses_them_and_calls_that_were_made() -> None:
    http, backend = surface("Dry.")
    refused = await http.post("/v1/chat/completions", json=chat(tools=[WEATHER]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "tools_unsupported")
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    made = {"role": "assistant", "content": "", "tool_calls": [call]}
    refused = await http.post("/v1/chat/completions", json=chat("Rain?", made))
    assert refused.status_code == 400
    assert "leaves tool_calls out" in refused.json()["error"]["message"]
    assert backend.requests == []


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_of_allowed_tools_alone_the_model_sees_and_calls_any(mode: str) -> None:
    http, backend = calling("Dry.")
    client = openai.AsyncOpenAI(http_client=http, base_url="http://inference/v1", api_key="-", max_retries=0)
    clock = {"type": "function", "function": {"name": "clock"}}
    named = {"type": "function", "function": {"name": "weather"}}
    allowed: Any = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named]}}
    request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Rain?"}]}
    await client.chat.completions.create(**request, tools=[WEATHER, clock], tool_choice=allowed)
    await client.chat.completions.create(**request, tools=[WEATHER], tool_choice=mode)
    assert backend.requests[0].prompt_ids == backend.requests[1].prompt_ids
    ours, theirs = (one.grammar.form if one.grammar else None for one in backend.requests)
    assert ours == theirs
    assert ours is not None
    with pytest.raises(openai.BadRequestError, match="allows 'weather', which tools does not have") as refused:
        await client.chat.completions.create(**request, tools=[clock], tool_choice=allowed)
    assert refused.value.param == "tool_choice"
