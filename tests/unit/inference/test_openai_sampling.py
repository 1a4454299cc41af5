"""Sampling parameters of a request reach the engine, and n answers are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from inference.surface import byte_tokenizer, chat, official, streamed, surface
from lora_core.generation_settings import GenerationSettings
from lora_core.sampling import SamplingParams
from services.inference.http.schemas import ChatRequest

pytestmark = pytest.mark.unit


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
