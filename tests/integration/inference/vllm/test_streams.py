"""Streams from vLLM servers, and what these servers cannot do."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.inference.conftest import QUESTION, TOKENS, answered, chat, eventually
from tests.integration.inference.vllm.conftest import held


async def test_a_stream_comes_token_by_token_and_closing_it_stops_the_server(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = make_adapter(seed=11)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    home = await held(vllm, adapter)
    pieces = [one async for one in streamed(inference.client, adapter.adapter_id, TOKENS)]
    assert "".join(pieces) == expected(made)
    home.delay, before = 0.2, home.cancelled
    async for _ in streamed(inference.client, adapter.adapter_id, 200):
        break

    async def cancelled() -> bool:
        return home.cancelled == before + 1

    await eventually(cancelled)


async def test_a_server_that_dies_under_a_stream_ends_it_with_an_error(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await registry.describe(make_adapter(seed=12), domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    home = await held(vllm, adapter)
    home.delay = 0.1
    with pytest.raises(StreamFailed, match="backend_unavailable"):
        async for _ in streamed(inference.client, adapter.adapter_id, 200):
            await asyncio.to_thread(home.stop)


async def test_stop_tokens_and_likelihoods_are_those_of_the_engine_of_this_process(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, tiny_model: Path, domain: str
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = make_adapter(seed=13)
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    ids = [10, 200, 3000, 40]
    body = {"model": adapter.adapter_id, "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}
    response = await inference.client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    got = response.json()["choices"][0]["logprobs"]["token_logprobs"]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), made.peft)
    with torch.inference_mode():
        logprobs = model.eval()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    assert got[0] is None
    assert got[1:] == pytest.approx([float(logprobs[at, token]) for at, token in enumerate(ids[1:])], abs=1e-3)


async def test_weighted_sets_and_embeddings_are_refused_by_name(
    inference: Any, vllm: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    one = await registry.describe(make_adapter(seed=14), f"{domain}a")
    two = await registry.describe(make_adapter(seed=15), f"{domain}b")
    for adapter in (one, two):
        await registry.activate(adapter)
        await answered(inference.client, adapter.adapter_id)
    response = await chat(inference.client, f"{one.family}:0.5+{two.family}:0.5")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "weighted_sets_unsupported")
    response = await inference.client.post("/v1/embeddings", json={"model": one.adapter_id, "input": "tide"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "embeddings_unsupported")


class StreamFailed(Exception):
    """The error that a stream ended with."""


async def streamed(client: httpx.AsyncClient, model: str, tokens: int) -> AsyncIterator[str]:
    """Pieces of a greedy chat answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": tokens,
        "stream": True,
    }
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise StreamFailed(event["error"]["code"])
            if content := event["choices"][0]["delta"].get("content"):
                yield content
