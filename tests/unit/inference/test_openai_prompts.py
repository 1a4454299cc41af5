"""Prompts in every form, their echo, log-probabilities of their tokens, and their vectors."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from inference.surface import MODEL, byte_tokenizer, chat, official, streamed, surface, text_of

pytestmark = pytest.mark.unit


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
