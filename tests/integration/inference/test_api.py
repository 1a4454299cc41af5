"""The OpenAI API of inference: its forms and its errors."""

import asyncio
import base64
import json
import secrets
from typing import Any

import httpx
import numpy as np
import pytest

from fleet_events import v1
from tests.integration.inference.conftest import TOKENS, answered, chat, eventually, text_of


async def test_models_lists_base_adapter_family_and_auto(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await registry.describe(make_adapter(seed=1), domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    listed = {one["id"]: one for one in (await inference.client.get("/v1/models")).json()["data"]}
    assert {"tiny", "auto", adapter.adapter_id, adapter.family} <= set(listed)
    assert listed[adapter.adapter_id]["parent"] == "tiny"
    assert listed[adapter.adapter_id]["artifact_sha256"] == adapter.artifact.blob.sha256
    assert listed[adapter.family]["root"] == adapter.adapter_id
    one = await inference.client.get(f"/v1/models/{adapter.adapter_id}")
    assert one.json() == listed[adapter.adapter_id]
    assert (await inference.client.get("/v1/models/nothing")).status_code == 404


async def test_a_caller_of_another_domain_neither_sees_nor_uses_an_adapter(
    inference: Any, registry: Any, make_adapter: Any, domain: str, mint: Any
) -> None:
    adapter = await registry.describe(make_adapter(seed=1), domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    headers = {"Authorization": f"Bearer {mint(['generate'], ['elsewhere'])}"}
    async with httpx.AsyncClient(base_url=inference.url, headers=headers) as client:
        refused = await chat(client, adapter.adapter_id)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert adapter.adapter_id not in (await client.get("/v1/models")).text
        assert (await chat(client, "tiny")).status_code == 200


async def test_likelihoods_of_a_text_are_those_of_transformers(inference: Any, tiny_model: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "The harbour closes at dusk."
    body = {"model": "tiny", "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
    response = await inference.client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    [choice] = response.json()["choices"]
    assert choice["text"] == text
    got = choice["logprobs"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)(ids).logits[0]
    wanted = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None]).squeeze(1)
    assert got["token_logprobs"][0] is None
    assert got["token_logprobs"][1:] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert got["text_offset"] == [begin for begin, _ in encoded["offset_mapping"]]
    assert "".join(got["tokens"]) == text


async def test_a_completion_streams_and_gives_the_logprob_of_each_token(inference: Any) -> None:
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 10, "temperature": 0, "logprobs": 1}
    [whole] = (await inference.client.post("/v1/completions", json=body)).json()["choices"]
    assert len(whole["logprobs"]["token_logprobs"]) == 10
    assert all(one <= 0 for one in whole["logprobs"]["token_logprobs"])
    async with inference.client.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
        lines = [line async for line in stream.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    choices = [json.loads(line[6:])["choices"][0] for line in lines[:-1]]
    assert "".join(one["text"] for one in choices) == whole["text"]
    streamed = [value for one in choices if one["logprobs"] for value in one["logprobs"]["token_logprobs"]]
    assert streamed == pytest.approx(whole["logprobs"]["token_logprobs"], abs=1e-5)


async def test_a_seed_repeats_a_sampled_answer_and_other_seeds_differ(inference: Any) -> None:
    def ask(seed: int) -> Any:
        return answered(inference.client, "tiny", temperature=1.5, seed=seed, max_tokens=20)

    first, again, *others = await asyncio.gather(*(ask(seed) for seed in (5, 5, 6, 7)))
    assert text_of(first) == text_of(again)
    assert all(text_of(first) != text_of(other) for other in others)


async def test_no_sampling_value_of_one_caller_fails_the_answers_of_another(inference: Any) -> None:
    def body(**values: float) -> dict[str, Any]:
        return {"model": "tiny", "prompt": "At noon", "max_tokens": 24, "temperature": 0, "ignore_eos": True, **values}

    async def ask(**values: float) -> httpx.Response:
        # The numbers as a caller writes them, down to the smallest that is none but zero.
        return await inference.client.post("/v1/completions", json=body(**values))

    [alone] = (await ask()).json()["choices"]
    smallest = [5e-324, 1e-310, 1e-45, 1e-38, 1e-30, 1e-8]
    extremes = [{"temperature": value} for value in smallest] + [
        {"temperature": 2, "top_p": value} for value in smallest
    ]
    answers = await asyncio.gather(ask(), *(ask(**values) for values in extremes), ask(seed=2**63 - 1, temperature=1))
    assert [response.status_code for response in answers] == [200] * len(answers)
    assert answers[0].json()["choices"] == [alone]


async def test_a_stop_string_ends_the_answer_before_it(inference: Any) -> None:
    whole = text_of(await answered(inference.client, "tiny"))
    stop = whole[len(whole) // 2 :][:3]
    body = await answered(inference.client, "tiny", stop=stop)
    assert text_of(body) == whole[: whole.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] < TOKENS


async def test_embeddings_are_those_of_the_sentence_model(inference: Any, embedding_model: Any) -> None:
    from lora_core.embedding import SentenceEmbedder

    texts = ["a tide table", "the harbour"]
    response = await inference.client.post(
        "/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": texts}, timeout=120
    )
    got = np.array([one["embedding"] for one in response.json()["data"]], dtype=np.float32)
    np.testing.assert_allclose(got, SentenceEmbedder(embedding_model).embed(texts), atol=1e-5)
    response = await inference.client.post(
        "/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": texts[0], "encoding_format": "base64"}
    )
    packed = base64.b64decode(response.json()["data"][0]["embedding"])
    np.testing.assert_allclose(np.frombuffer(packed, dtype="<f4"), got[0], atol=1e-6)


@pytest.mark.requirement("LI-5.1", "LI-5.5")
async def test_embeddings_with_an_adapter_are_those_of_the_model_that_it_makes(
    inference: Any, registry: Any, make_adapter: Any, tiny_model: Any, domain: str
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = make_adapter(seed=31)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    texts = [f"the tide at {hour} o'clock" for hour in range(11)]  # more than one batch of rows
    got: dict[str, Any] = {}
    for model in ("tiny", adapter.family):
        response = await inference.client.post("/v1/embeddings", json={"model": model, "input": texts}, timeout=120)
        got[model] = response.json()
    assert got["tiny"]["lorafleet"]["adapter_id"] is None
    assert got[adapter.family]["lorafleet"]["artifact_sha256"] == adapter.artifact.blob.sha256

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for model in ("tiny", adapter.family):
        wanted = base if model == "tiny" else PeftModel.from_pretrained(base, made.peft)  # changes the base in place
        for text, one in zip(texts, got[model]["data"], strict=True):
            with torch.no_grad():
                hidden = wanted(torch.tensor([tokenizer(text)["input_ids"]]), output_hidden_states=True).hidden_states
            mean = hidden[-1][0].mean(0)
            np.testing.assert_allclose(one["embedding"], mean / mean.norm(), atol=1e-5)
    assert got["tiny"]["data"] != got[adapter.family]["data"]
    for model, status in (("ghost", 404), ("auto", 400)):
        refused = await inference.client.post("/v1/embeddings", json={"model": model, "input": "x"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, "model")
    assert "all-MiniLM-L6-v2" in refused.text or "by name" in refused.text


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "no-such-model"}, 404, "model"),
        ({"messages": []}, 422, "messages"),
        ({"temperature": 3}, 422, "temperature"),
        ({"max_tokens": 100_000}, 400, "max_tokens"),
        ({"n": 9}, 422, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 422, "tools"),
        ({"messages": [{"role": "user", "content": "tide " * 400}]}, 400, "messages"),
    ],
)
async def test_a_bad_request_is_refused_in_openais_form(
    inference: Any, changes: dict[str, Any], status: int, param: str
) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **changes}
    response = await inference.client.post("/v1/chat/completions", json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


async def test_tokens_are_asked_for_and_scopes_are_kept(inference: Any, mint: Any) -> None:
    async with httpx.AsyncClient(base_url=inference.url) as client:
        nobody = await chat(client, "tiny")
        assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "invalid_api_key")
        reader = await client.post(
            "/v1/chat/completions",
            json={"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
            headers={"Authorization": f"Bearer {mint(['adapters:read'])}"},
        )
        assert (reader.status_code, reader.json()["error"]["type"]) == (403, "permission_error")


async def test_a_full_queue_says_when_to_come_again(run_service: Any, settings_of_inference: dict[str, str]) -> None:
    changes = {**settings_of_inference, "LORAFLEET_QUEUE_LIMIT": "1", "LORAFLEET_BATCH_ROWS": "1"}
    async with run_service("inference", **changes) as small:
        got = await asyncio.gather(*(chat(small.client, "tiny", max_tokens=100) for _ in range(12)))
        statuses = [one.status_code for one in got]
        assert set(statuses) == {200, 503}
        refused = next(one for one in got if one.status_code == 503)
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        # Nothing is left behind that would block the next one.
        assert (await chat(small.client, "tiny")).status_code == 200


async def test_more_requests_than_a_caller_may_make_are_told_when_to_come_again(
    run_service: Any, settings_of_inference: dict[str, str], mint: Any
) -> None:
    each = {"minute": {"requests": 50, "prompt_tokens": 1000}}
    quotas = {"callers": {"bounded": {"month": {"completion_tokens": 3}}, "*": each}}
    bounded = {"LORAFLEET_QUOTAS": json.dumps(quotas)}
    async with run_service(
        "inference", **settings_of_inference, LORAFLEET_REQUESTS_PER_MINUTE="2", **bounded
    ) as running:
        answers = [await chat(running.client, "tiny", max_tokens=1) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert 0 < float(answers[2].headers["retry-after"]) <= 30
        headers = {"Authorization": f"Bearer {mint(['generate'], subject='another')}"}
        async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=60) as another:
            assert (await chat(another, "tiny", max_tokens=1)).status_code == 200
        headers = {"Authorization": f"Bearer {mint(['generate'], subject='bounded')}"}
        async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=60) as another:
            assert (await chat(another, "tiny", max_tokens=3)).status_code == 200
            refused = await chat(another, "tiny", max_tokens=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert refused.headers["x-ratelimit-limit-tokens"] == "3"
        turns = [{"role": "user", "content": "Hello"}]
        for path, body in (
            ("chat/completions", {"messages": turns, "max_tokens": 1}),
            ("chat/completions", {"messages": turns, "max_tokens": 1, "stream": True}),
            ("completions", {"prompt": "Hello", "max_tokens": 1}),
            ("responses", {"input": "Hello", "max_output_tokens": 1}),
            ("embeddings", {"input": "Hello"}),
        ):
            headers = {"Authorization": f"Bearer {mint(['generate'], subject=secrets.token_hex(4))}"}
            async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=60) as told:
                first = await told.post(f"/v1/{path}", json={"model": "tiny", **body})
                assert first.status_code == 200, first.text
                second = await told.post(f"/v1/{path}", json={"model": "tiny", **body})
            left = [one.headers["x-ratelimit-remaining-requests"] for one in (first, second)]
            assert (left, first.headers["x-ratelimit-limit-requests"]) == (["49", "48"], "50"), path
            tokens = [int(one.headers["x-ratelimit-remaining-tokens"]) for one in (first, second)]
            assert tokens[1] < tokens[0] <= 1000, path
            assert "x-ratelimit-reset-tokens" in first.headers
        assert (await running.client.get("/v1/models")).status_code == 200


async def test_a_client_that_goes_away_frees_its_row(inference: Any) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 400, "stream": True}
    async with inference.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        async for _ in stream.aiter_lines():
            break
    begun = asyncio.get_running_loop().time()

    async def idle() -> Any:
        return (await inference.client.get("/admin/adapters")).json()["rows_running"] == 0

    await eventually(idle, seconds=5)
    assert asyncio.get_running_loop().time() - begun < 5


async def test_answers_continue_while_the_bus_is_unavailable_and_are_published_afterwards(
    inference: Any, registry: Any, servers: Any
) -> None:
    await asyncio.to_thread(servers.stop_part, "nats")
    try:
        body = await answered(inference.client, "tiny")
        ready = await inference.client.get("/readyz")
        assert ready.status_code == 503
        lost = await inference.client.post("/v1/feedback", json={"generation_id": body["id"], "rating": 5})
        assert lost.status_code == 503
    finally:
        await asyncio.to_thread(servers.start_part, "nats")

    async def completed() -> Any:
        try:
            return [one for one in await registry.published(v1.GenerationCompleted) if one.generation_id == body["id"]]
        except Exception:  # the test's own connection has to come back as well
            return []

    assert len(await eventually(completed, seconds=30)) == 1
