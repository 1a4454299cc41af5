"""What OpenAI's clients send is answered in OpenAI's forms, or refused naming the parameter and what to use instead."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import openai
import pytest

from inference.surface import CHATML, MODEL, byte_tokenizer, chat, surface
from lora_core.generation_settings import GenerationSettings
from lora_core.sampling import SamplingParams
from services.inference.http.schemas import ChatRequest

pytestmark = pytest.mark.unit


def text_of(request: Any, tokenizer: Any = None) -> str:
    """The prompt that the back end was given."""
    return str((tokenizer or byte_tokenizer()).decode(request.prompt_ids))


def official(http: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="none", base_url="http://inference/v1", http_client=http, max_retries=0)


async def streamed(http: Any, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (await http.post(path, json=body | {"stream": True})).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line[6:]) for line in lines[:-2]]


# Conversations


async def test_an_answers_message_can_be_sent_back_as_the_official_client_holds_it() -> None:
    http, backend = surface("Within 60 days.")
    first = await official(http).chat.completions.create(**chat("May I return sandals?"))
    messages: list[Any] = [first.choices[0].message, {"role": "user", "content": "And boots?"}]
    again = await official(http).chat.completions.create(model=MODEL, messages=messages)
    assert again.choices[0].message.content == "Within 60 days."
    assert "<|im_start|>assistant\nWithin 60 days.<|im_end|>" in text_of(backend.requests[1])


@pytest.mark.parametrize(
    "more",
    [
        {"refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": None},
        {"annotations": [], "tool_calls": [], "refusal": ""},
        {"reasoning": None, "reasoning_content": "", "provider_specific_fields": {"refusal": None}},
        {"anything_that_a_client_adds": None, "name": None},
        {"images": [], "thinking_blocks": [], "id": "chatcmpl-1", "created": 1767225600, "index": 0},
        {"another": {}, "more": ""},
    ],
)
async def test_members_of_a_message_that_say_nothing_are_taken(more: dict[str, Any]) -> None:
    http, backend = surface()
    answer = await http.post(
        "/v1/chat/completions", json=chat("Hi", {"role": "assistant", "content": "Yes?", **more}, "Go")
    )
    assert answer.status_code == 200, answer.text
    assert "assistant\nYes?<" in text_of(backend.requests[0])


async def test_an_empty_answer_may_come_back_without_content() -> None:
    http, backend = surface()
    answer = await http.post("/v1/chat/completions", json=chat("Hi", {"role": "assistant", "content": None}, "Go"))
    assert answer.status_code == 200, answer.text
    assert "assistant\n<|im_end|>" in text_of(backend.requests[0])


async def test_roles_are_the_templates_own_and_text_parts_are_one_text() -> None:
    http, backend = surface()
    body = chat(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "there?"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "function", "name": "weather", "content": "wind"},
    )
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    wanted = [("system", "Be brief."), ("user", "Weather there?"), ("tool", "rain"), ("tool", "wind")]
    turns = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in wanted)
    assert text_of(backend.requests[0]) == turns + "<|im_start|>assistant\n"


async def test_a_template_that_would_drop_a_tools_turn_in_silence_refuses_it() -> None:
    blind = CHATML.replace("{%- for m in messages %}", "{%- for m in messages if m.role != 'tool' %}")
    http, _ = surface(tokenizer=byte_tokenizer(blind))
    body = chat("Weather?", {"role": "tool", "tool_call_id": "1", "content": "rain"})
    refused = await http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert "role tool" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "tool_calls: not supported"),
        ({"role": "assistant", "content": "", "refusal": "I will not"}, "refusal: not supported"),
        ({"role": "assistant", "content": "", "images": [{"type": "image_url"}]}, "messages.0.images"),
        ({"role": "assistant", "content": "", "thinking_blocks": [{"thinking": "so"}]}, "messages.0.thinking_blocks"),
        ({"role": "assistant", "content": "", "flag": False}, "messages.0.flag"),
        ({"role": "user", "content": "Hi", "images": []}, "messages.0.images"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "a part of type image_url"),
        ({"role": "user", "content": None}, "a turn of role user without content"),
        ({"role": "poet", "content": "o"}, "role"),
    ],
)
async def test_turns_that_say_more_than_text_are_refused_by_name(turn: dict[str, Any], message: str) -> None:
    http, backend = surface()
    refused = await http.post("/v1/chat/completions", json=chat(turn))
    assert refused.status_code == 422
    assert message in refused.json()["error"]["message"]
    assert backend.requests == []


# Parameters


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_null_is_unset_for_every_optional_parameter(path: str) -> None:
    from services.inference.http.schemas import ChatRequest, CompletionRequest, EmbeddingRequest

    schema = {
        "/v1/chat/completions": (ChatRequest, chat()),
        "/v1/completions": (CompletionRequest, {"model": MODEL, "prompt": "Hi"}),
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


async def test_tools_that_may_not_be_called_are_no_part_of_the_prompt() -> None:
    http, backend = surface()
    tools = [{"type": "function", "function": {"name": "f"}}]
    for more in ({}, {"tools": tools, "tool_choice": "none"}):
        assert (await http.post("/v1/chat/completions", json=chat("Hi", **more))).status_code == 200
    plain, offered = backend.requests
    assert offered.prompt_ids == plain.prompt_ids
    for choice in ({"tool_choice": "auto"}, {"function_call": "none"}, {}):
        assert (await http.post("/v1/chat/completions", json=chat(tools=tools, **choice))).status_code == 422


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
        ("tools", [{"type": "function", "function": {"name": "f"}}], "system message"),
        ("tool_choice", "required", "system message"),
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


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("", "stop: expected a text of 1 to 200 characters, or a list of up to 16 of them"),
        (7, "stop: expected a text of 1 to 200 characters, or a list of up to 16 of them"),
        ([None], "stop.list.0: Input should be a valid string"),
        (["."] * 17, "stop.list: List should have at most 16 items"),
    ],
)
async def test_a_stop_that_is_none_is_refused_once(stop: Any, message: str) -> None:
    http, _ = surface()
    refused = await http.post("/v1/chat/completions", json=chat(stop=stop))
    assert refused.status_code == 422
    assert refused.json()["error"]["message"].startswith(message)
    assert ";" not in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/assistants", "/v1/images/generations"])
async def test_a_route_that_is_not_served_says_which_one_is(path: str) -> None:
    http, _ = surface()
    refused = await http.post(path, json={"model": MODEL, "input": "hi"})
    assert refused.status_code == 404
    error = refused.json()["error"]
    assert error["code"] == "route_not_served"
    assert path in error["message"]
    assert "/v1/chat/completions" in error["message"]


async def test_a_model_whose_name_has_an_owner_is_retrieved() -> None:
    http, _ = surface()
    assert (await official(http).models.retrieve(MODEL)).id == MODEL
    assert (await http.get("/v1/models/acme/other")).status_code == 404


# How answers are drawn


async def test_every_sampling_parameter_reaches_the_engine() -> None:
    http, backend = surface()
    more = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": -0.5,
        "repetition_penalty": 1.2, "logit_bias": {"65": -100, "66": 2.5}, "seed": -3,
    }  # fmt: skip
    assert {*more, "max_tokens"} == SamplingParams.__dataclass_fields__.keys() & ChatRequest.model_fields.keys()
    assert (await http.post("/v1/chat/completions", json=chat(**more))).status_code == 200
    [request] = backend.requests
    for name, value in more.items():
        if name != "logit_bias":
            assert getattr(request, name) == value
    assert request.logit_bias == {65: -100.0, 66: 2.5}


async def test_what_a_request_leaves_open_is_the_models_own_and_else_openais() -> None:
    own = GenerationSettings(temperature=0.7, top_k=20, repetition_penalty=1.05)
    http, backend = surface(own=own)
    await http.post("/v1/chat/completions", json=chat())
    await http.post("/v1/chat/completions", json=chat(temperature=0, top_k=-1, repetition_penalty=1))
    mine, given = backend.requests
    assert (mine.temperature, mine.top_p, mine.top_k, mine.repetition_penalty) == (0.7, 1.0, 20, 1.05)
    assert (given.temperature, given.top_k, given.repetition_penalty) == (0, 0, 1)


@pytest.mark.parametrize(
    ("bias", "message"), [({"9999": 1}, "token id 9999"), ({"a": 1}, "logit_bias"), ({"5": 101}, "100")]
)
async def test_a_bias_of_no_token_or_beyond_its_bounds_is_refused(bias: dict[str, float], message: str) -> None:
    http, backend = surface()
    refused = await http.post("/v1/chat/completions", json=chat(logit_bias=bias))
    assert refused.status_code in {400, 422}
    assert message in refused.json()["error"]["message"]
    assert backend.requests == []


@pytest.mark.parametrize(
    ("more", "reason", "text"),
    [
        ({"stop": ["<|endoftext|>", "\n\n"]}, "stop", "ab"),
        ({"stop": "<|endoftext|>"}, "stop", "ab"),
        ({"stop": ["<|endoftext|>\n"]}, "stop", "ab"),
        ({"stop_token_ids": byte_tokenizer()("b")["input_ids"]}, "stop", "a"),
        ({"stop": ["<|im_start|>"]}, "stop", "abcd"),
        ({"stop": ["d"], "max_tokens": 3}, "length", "ab"),
    ],
)
async def test_a_special_token_or_an_id_ends_an_answer_as_a_stop_string_does(
    more: dict[str, Any], reason: str, text: str
) -> None:
    http, _ = surface(byte_tokenizer()("ab<|endoftext|>cd", add_special_tokens=False)["input_ids"])
    answer = (await http.post("/v1/chat/completions", json=chat(**more))).json()
    assert answer["choices"][0]["message"]["content"] == text
    assert answer["choices"][0]["finish_reason"] == reason
    assert answer["usage"]["completion_tokens"] == {"a": 1, "ab": 2, "abcd": 5}[text] + (reason == "length")


async def test_n_answers_have_their_indices_and_seeds_of_their_own() -> None:
    http, backend = surface("Yes.")
    whole = await official(http).chat.completions.create(**chat(n=8, seed=2**63 - 2))
    assert [one.index for one in whole.choices] == list(range(8))
    assert {one.message.content for one in whole.choices} == {"Yes."}
    assert len({one.seed for one in backend.requests}) == 8
    assert all(-(2**63) <= one.seed < 2**63 for one in backend.requests if one.seed is not None)
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == len(backend.requests[0].prompt_ids)
    assert whole.usage.completion_tokens == 8 * 4
    assert backend.most_at_once == 2
    assert len(backend.foreseen) == 1
    assert (await http.post("/v1/chat/completions", json=chat(n=9))).status_code == 422


async def test_streamed_answers_are_told_apart_and_end_with_the_usage_of_all() -> None:
    http, _ = surface("für 5 €")
    chunks = await streamed(http, "/v1/chat/completions", chat(n=3, stream_options={"include_usage": True}))
    texts = ["", "", ""]
    for chunk in chunks[:-1]:
        assert chunk["usage"] is None
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["für 5 €"] * 3
    ends = [one["choices"][0]["index"] for one in chunks[:-1] if one["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 3 * len("für 5 €".encode())
    assert "usage" not in (await streamed(http, "/v1/chat/completions", chat()))[0]


# Completions


IDS = byte_tokenizer()("Hi!")["input_ids"]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("One", 1),
        (["One"], 1),
        (["One", "Two", "Three"], 3),
        (IDS, 1),
        ([IDS], 1),
        ([IDS, IDS[:1]], 2),
    ],
)
@pytest.mark.parametrize("n", [1, 2])
async def test_every_form_of_a_prompt_gets_a_choice_of_each_in_order(prompt: Any, prompts: int, n: int) -> None:
    http, backend = surface("abc")
    answer = (await http.post("/v1/completions", json={"model": MODEL, "prompt": prompt, "n": n, "echo": True})).json()
    assert [one["index"] for one in answer["choices"]] == list(range(prompts * n))
    heads = [text_of(one) for one in backend.requests]
    assert [one["text"] for one in answer["choices"]] == [head + "abc" for head in heads]
    assert len(heads) == prompts * n
    assert answer["usage"]["prompt_tokens"] == sum(len(one.prompt_ids) for one in backend.requests) // n
    chunks = await streamed(http, "/v1/completions", {"model": MODEL, "prompt": prompt, "n": n})
    assert {one["choices"][0]["index"] for one in chunks} == set(range(prompts * n))


@pytest.mark.parametrize("prompt", ["é or", ["One", "Two"], IDS])
@pytest.mark.parametrize("more", [{}, {"logprobs": 1}, {"n": 2, "logprobs": 0}, {"max_tokens": 0, "logprobs": 2}])
async def test_an_echo_is_streamed_as_it_is_in_a_whole_answer(prompt: Any, more: dict[str, Any]) -> None:
    http, _ = surface("ü€b")
    body = {"model": MODEL, "prompt": prompt, "echo": True, **more}
    whole = (await http.post("/v1/completions", json=body)).json()["choices"]
    chunks = [one["choices"][0] for one in await streamed(http, "/v1/completions", body)]
    for choice in whole:
        own = [one for one in chunks if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in own) == choice["text"]
        assert [one["finish_reason"] for one in own] == [None] * (len(own) - 1) + [choice["finish_reason"]]
        for name, values in (choice["logprobs"] or {}).items():
            assert [value for one in own if one["logprobs"] for value in one["logprobs"][name]] == values


@pytest.mark.parametrize("prompt", [[], "", [""], [[]], [["a"]], {"text": "a"}, 7, [IDS, "a"]])
async def test_a_prompt_of_another_form_is_refused_by_name(prompt: Any) -> None:
    http, _ = surface()
    refused = await http.post("/v1/completions", json={"model": MODEL, "prompt": prompt})
    assert refused.status_code == 422
    assert refused.json()["error"]["param"].startswith("prompt")


async def test_lm_evals_request_gets_the_likeliest_token_of_each_place_of_the_prompt() -> None:
    http, _ = surface("abc")
    body = {"prompt": [IDS], "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234}
    [choice] = (await http.post("/v1/completions", json={"model": MODEL, **body})).json()["choices"]
    listed = choice["logprobs"]
    tokenizer = byte_tokenizer()
    assert listed["tokens"] == [tokenizer.decode([one]) for one in [*IDS, tokenizer("a")["input_ids"][0]]]
    assert listed["token_logprobs"] == [None, -0.5, -0.5, -0.5]
    assert listed["top_logprobs"][0] is None
    assert listed["top_logprobs"][1] == {tokenizer.decode([IDS[1]]): -0.5, tokenizer.decode([IDS[1] + 1]): -0.25}
    assert all(len(one) == 2 for one in listed["top_logprobs"][1:])


async def test_text_offsets_count_characters_and_not_their_bytes() -> None:
    http, _ = surface("ü€b")
    body = {"model": MODEL, "prompt": "é", "logprobs": 0, "echo": True}
    [choice] = (await http.post("/v1/completions", json=body)).json()["choices"]
    assert choice["text"] == "éü€b"
    assert choice["logprobs"]["text_offset"][-6:] == [1, 1, 2, 2, 2, 3]
    assert choice["logprobs"]["top_logprobs"] == [None] * 8


# Log-probabilities of chats


async def test_the_bytes_of_all_tokens_are_the_answers_and_parts_of_a_character_are_named_by_theirs() -> None:
    http, _ = surface("5 €, 🙂")
    [choice] = (await http.post("/v1/chat/completions", json=chat(logprobs=True, top_logprobs=3))).json()["choices"]
    listed = choice["logprobs"]["content"]
    assert b"".join(bytes(one["bytes"]) for one in listed) == "5 €, 🙂".encode()
    assert [one["token"] for one in listed[:4]] == ["5", " ", "bytes:\\xe2", "bytes:\\x82"]
    assert [one["logprob"] for one in listed[0]["top_logprobs"]] == [-0.25, -0.5, -0.75]
    chunks = await streamed(http, "/v1/chat/completions", chat(logprobs=True))
    parts = [one["choices"][0]["logprobs"] for one in chunks]
    joined = b"".join(bytes(one["bytes"]) for part in parts if part for one in part["content"])
    assert joined == "5 €, 🙂".encode()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tokens_of_a_stop_string_are_not_told(stream: bool) -> None:
    http, _ = surface("one\n\nHuman: two")
    body = chat(logprobs=True, stop=["\n\nHuman:"])
    if stream:
        chunks = await streamed(http, "/v1/chat/completions", body)
        parts = [one["choices"][0]["logprobs"] for one in chunks]
    else:
        parts = [(await http.post("/v1/chat/completions", json=body)).json()["choices"][0]["logprobs"]]
    assert "".join(one["token"] for part in parts if part for one in part["content"]) == "one"


async def test_candidates_without_log_probabilities_are_refused() -> None:
    http, _ = surface()
    refused = await http.post("/v1/chat/completions", json=chat(top_logprobs=2))
    assert refused.status_code == 422
    assert "set logprobs to true" in refused.json()["error"]["message"]


# Embeddings


@pytest.mark.parametrize("model", [MODEL, "sentences"])
async def test_vectors_come_with_usage_and_in_either_encoding(model: str) -> None:
    http, _ = surface()
    made = await official(http).embeddings.create(model=model, input=["One", "another"])
    assert made.usage.prompt_tokens == made.usage.total_tokens == len("One" + "another")
    body = {"model": model, "input": "One", "dimensions": 1}
    [plain] = (await http.post("/v1/embeddings", json=body)).json()["data"]
    assert plain["embedding"] == [1.0]
    [packed] = (await http.post("/v1/embeddings", json=body | {"dimensions": 3, "encoding_format": "base64"})).json()[
        "data"
    ]
    vector = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    np.testing.assert_allclose(vector, [0.6, 0.8, 0.0], atol=1e-6)
    refused = await http.post("/v1/embeddings", json=body | {"dimensions": 4})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")


async def test_token_ids_are_embedded_where_they_are_the_models_own() -> None:
    http, backend = surface()
    for given, wanted in ((IDS, [IDS]), ([IDS, IDS[:1]], [IDS, IDS[:1]])):
        backend.embedded.clear()
        answer = await http.post("/v1/embeddings", json={"model": MODEL, "input": given})
        assert answer.status_code == 200, answer.text
        assert backend.embedded == wanted
        assert answer.json()["usage"]["prompt_tokens"] == sum(map(len, wanted))


async def test_token_ids_of_another_vocabulary_are_refused_with_what_to_do() -> None:
    http, backend = surface()
    for model, given in ((MODEL, [9999]), (MODEL, [137, 72]), ("sentences", IDS)):
        refused = await http.post("/v1/embeddings", json={"model": model, "input": given})
        assert refused.status_code == 400, given
        assert "token" in refused.json()["error"]["message"]
    assert "check_embedding_ctx_length=False" in refused.json()["error"]["message"]
    assert backend.embedded == []


# The model's chat template

THINKING = (
    CHATML
    + "{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{{ style.tone if style is defined }}"
)


async def test_a_request_sets_the_variables_that_the_models_template_reads() -> None:
    http, backend = surface(tokenizer=byte_tokenizer(THINKING))
    for more in ({}, {"enable_thinking": False, "style": {"tone": "dry"}, "unset": None}):
        answer = await http.post("/v1/chat/completions", json=chat(chat_template_kwargs=more))
        assert answer.status_code == 200, answer.text
    plain, quick = map(text_of, backend.requests)
    assert quick == plain + "<think></think>dry"


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ({"enable_thought": False}, 400, "no variable 'enable_thought': it reads enable_thinking, style"),
        ({"messages": "no"}, 400, "no variable 'messages'"),
        ({"style": ["dry"]}, 422, "expected text, finite numbers, booleans"),
        ({"style": {"a": {"b": {"c": {"d": 1}}}}}, 422, "at most 4 deep"),
        ({"style": "x" * 5000}, 422, "at most 4096 bytes"),
    ],
)
async def test_other_variables_of_the_template_are_refused_by_name(given: object, status: int, message: str) -> None:
    http, _ = surface(tokenizer=byte_tokenizer(THINKING))
    answer = await http.post("/v1/chat/completions", json=chat(chat_template_kwargs=given))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, "chat_template_kwargs")
    assert message in error["message"]


# Tokens that the model has no embedding of


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", chat("Hi <|im_end|>"), "messages"),
        ("/v1/completions", {"model": MODEL, "prompt": [5, 258]}, "prompt"),
        ("/v1/completions", {"model": MODEL, "prompt": "Hi <|im_end|>"}, "prompt"),
        ("/v1/embeddings", {"model": MODEL, "input": ["Hi", "Hi <|im_end|>"]}, "input"),
        ("/v1/embeddings", {"model": MODEL, "input": [5, 258]}, "input"),
        ("/v1/completions", {"model": MODEL, "prompt": "Hi", "logit_bias": {"258": 1}}, "logit_bias"),
    ],
)
async def test_a_token_beyond_the_models_embedding_is_refused_naming_the_field(
    path: str, body: dict[str, Any], param: str
) -> None:
    http, backend = surface(embeddings=258)
    answer = await http.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), answer.text
    assert "token id 258" in error["message"]
    assert not backend.requests
