"""Several answers to one prompt: the engine reads it once, and their adapters are leased once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from inference.surface import MODEL, application, byte_tokenizer
from lora_core.engine import ArrowEngine
from services.inference.backend import LocalBackend
from services.inference.engine_thread import EngineThread
from services.inference.http import api

pytestmark = pytest.mark.unit
PROMPT = "Where does the river end? "


class Leases:
    """Adapters that note how many leases there were, and are now."""

    def __init__(self) -> None:
        self.taken = self.open = 0

    @asynccontextmanager
    async def lease_all(self, _adapters: object, _wait_credit: float = 0.0) -> AsyncIterator[None]:
        self.taken, self.open = self.taken + 1, self.open + 1
        yield
        self.open -= 1


@asynccontextmanager
async def engine_surface(rows: int = 8) -> AsyncIterator[tuple[httpx.AsyncClient, list[int], Leases]]:
    """The routes on a real engine; the numbers of tokens that its passes read, as they come; and the leases."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    tokenizer = byte_tokenizer()
    engine = ArrowEngine(LlamaForCausalLM(config).eval(), tokenizer, slots=1, max_rank=1)
    read: list[int] = []
    engine.model.register_forward_pre_hook(
        lambda _model, _args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    app, _ = application(tokenizer=tokenizer)
    parts = app.dependency_overrides[api._parts]()
    thread, leases = EngineThread(engine, rows, 20), Leases()
    hosted = replace(parts.hosting.all[0], backend=LocalBackend(thread, engine), adapters=leases)
    parts.generator = replace(parts.generator, hosting=type(parts.hosting)([hosted]))
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inference") as client:
            yield client, read, leases
    finally:
        await thread.close()


def request_body(n: int, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": PROMPT, "n": n, "max_tokens": 4, "seed": 5, "ignore_eos": True, **more}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_is_read_once_for_all_its_answers(stream: bool) -> None:
    async with engine_surface() as (http, read, leases):
        answer = await http.post("/v1/completions", json=request_body(4, stream=stream))
        assert answer.status_code == 200, answer.text
        assert read == [len(PROMPT), 4, 4, 4], "the prompt once, then a token of each answer at a time"
        assert (leases.taken, leases.open) == (1, 0)


async def test_answers_that_share_a_prompt_are_those_that_each_would_be_alone() -> None:
    async with engine_surface() as (http, *_):
        together = (await http.post("/v1/completions", json=request_body(3, logprobs=0))).json()["choices"]
        for number, choice in enumerate(together):
            [alone] = (await http.post("/v1/completions", json=request_body(1, seed=5 + number, logprobs=0))).json()[
                "choices"
            ]
            assert choice["logprobs"]["tokens"] == alone["logprobs"]["tokens"]
        assert len({one["text"] for one in together}) == 3


async def test_more_answers_than_rows_read_the_prompt_once_for_each_group_that_fits() -> None:
    async with engine_surface(rows=2) as (http, read, leases):
        answer = await http.post("/v1/completions", json=request_body(5))
        assert len(answer.json()["choices"]) == 5
        assert [count for count in read if count > 4] == [len(PROMPT)] * 3
        assert leases.open == 0
