"""What OpenAI's clients send is answered in OpenAI's forms, or refused naming the parameter and what to use instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inference.surface import MODEL, chat, official, surface
from services.inference.http.responses.request import ResponseRequest
from services.inference.http.schemas import ChatRequest

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"])
async def test_null_is_unset_for_every_optional_parameter(path: str) -> None:
    from services.inference.http.schemas import CompletionRequest, EmbeddingRequest

    schema = {
        "/v1/chat/completions": (ChatRequest, chat()),
        "/v1/completions": (CompletionRequest, {"model": MODEL, "prompt": "Hi"}),
        "/v1/responses": (ResponseRequest, {"model": MODEL, "input": "Hi"}),
        "/v1/embeddings": (EmbeddingRequest, {"model": MODEL, "input": "Hi"}),
    }
    model, body = schema[path]
    http, _ = surface()
    nulls = {name: None for name in model.model_fields if name not in body} | {"unknown_to_us": None}
    answer = await http.post(path, json=body | nulls)
    assert answer.status_code == 200, answer.text
    optional = {name: one for name, one in model.model_json_schema()["properties"].items() if name in nulls}
    assert [name for name, one in optional.items() if "null" not in json.dumps(one)] == []


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [], "tool_choice": "none", "functions": [], "function_call": "auto"},
        {"logit_bias": {}, "metadata": {}, "stop": [], "modalities": ["text"], "response_format": {"type": "text"}},
        {"service_tier": "auto", "parallel_tool_calls": True, "reasoning_effort": "low", "verbosity": "high"},
        {
            "store": True,
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
            "prompt_cache_retention": "24h",
        },
        {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "top_logprobs": 0},
        {"response_format": {"type": "text", "json_schema": None}, "stream_options": {"include_obfuscation": True}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
        {"functions": [{"name": "f"}], "function_call": "none"},
        {"best_of": 1},
        {"n": 2, "best_of": 2},
        {"skip_special_tokens": True, "min_tokens": 0, "add_generation_prompt": True, "chat_template_kwargs": {}},
    ],
)
async def test_values_that_ask_for_nothing_are_taken(more: dict[str, Any]) -> None:
    http, _ = surface()
    answer = await http.post("/v1/chat/completions", json=chat(**more))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_as_many_candidates_as_answers_are_taken_and_more_are_refused(path: str) -> None:
    http, _ = surface()
    body = chat() if path == "/v1/chat/completions" else {"model": MODEL, "prompt": "Hi"}
    for more in ({"best_of": 1}, {"n": 3, "best_of": 3}):
        answer = await http.post(path, json=body | more)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["choices"]) == more.get("n", 1)
    for more in ({"best_of": 2}, {"n": 2, "best_of": 3}):
        refused = await http.post(path, json=body | more)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == "best_of"


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("functions", [{"name": "f"}], "use tools and tool_choice"),
        ("modalities", ["text", "audio"], "text alone"),
        ("web_search_options", {}, "into the messages"),
        ("skip_special_tokens", False, "plain text"),
    ],
)
async def test_what_is_not_supported_is_refused_with_what_to_use_instead(name: str, value: Any, instead: str) -> None:
    http, backend = surface()
    refused = await http.post("/v1/chat/completions", json=chat(**{name: value}))
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert error["param"] == name
    assert instead in error["message"]
    assert backend.requests == []


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("/v1/completions", "max_completion_tokens", "not a known parameter here; it is max_tokens"),
        ("/v1/chat/completions", "max_new_tokens", "not a known parameter here; it is max_tokens"),
        ("/v1/chat/completions", "temprature", "not a known parameter here; the nearest is temperature"),
        ("/v1/chat/completions", "enable_thinking", "not a known parameter here; conversations are rendered by the"),
        ("/v1/chat/completions", "zebra", "not a known parameter here"),
        ("/v1/embeddings", "max_new_tokens", "not a known parameter here"),
        ("/v1/embeddings", "dimension", "not a known parameter here; the nearest is dimensions"),
    ],
)
async def test_an_unknown_parameter_is_refused_by_name_with_the_known_one(path: str, name: str, message: str) -> None:
    http, _ = surface()
    body = {"/v1/completions": {"prompt": "Hi"}, "/v1/embeddings": {"input": "Hi"}}.get(path) or chat()
    refused = await http.post(path, json={"model": MODEL, **body, name: 1})
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert error["param"] == name
    if message.endswith("here"):
        assert error["message"] == f"{name}: {message}"
    assert error["message"].startswith(f"{name}: {message}")


async def test_an_unknown_member_is_named_by_its_place_and_a_body_of_many_is_answered_in_short() -> None:
    http, _ = surface()
    turn = {"role": "user", "content": "Hi", "nam": "x"}
    refused = await http.post("/v1/chat/completions", json=chat(turn, stream=True, stream_options={"usage": True}))
    message = refused.json()["error"]["message"]
    assert "messages.0.nam: not a known parameter here; the nearest is name" in message
    assert "stream_options.usage: not a known parameter here" in message
    many = {f"{number}{'x' * 1000}": 1 for number in range(1000)}
    assert len((await http.post("/v1/chat/completions", json=chat(**many))).text) < 2000


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/assistants", "/v1/images/generations"])
async def test_a_route_that_is_not_served_says_which_one_is(path: str) -> None:
    http, _ = surface()
    refused = await http.post(path, json={"model": MODEL, "input": "hi"})
    assert refused.status_code == 404
    error = refused.json()["error"]
    assert error["code"] == "route_not_served"
    assert path in error["message"]
    assert "/v1/chat/completions" in error["message"] or path == "/v1/uploads"


async def test_a_model_whose_name_has_an_owner_is_retrieved() -> None:
    http, _ = surface()
    assert (await official(http).models.retrieve(MODEL)).id == MODEL
    assert (await http.get("/v1/models/acme/other")).status_code == 404
