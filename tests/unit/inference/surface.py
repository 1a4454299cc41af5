"""The HTTP routes of inference over ASGI, on a back end that answers what the test wants and keeps its requests."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, get_args

import httpx
import numpy as np
import openai
from fastapi import FastAPI

from fleet_kit.auth import Caller
from lora_core.engine import Request
from lora_core.generation_settings import GenerationSettings
from services.inference.backlog import NOTHING_PUBLISHED, Publications
from services.inference.base_models import BaseModels, Limits, ServedBaseModel
from services.inference.catalogue import Catalogue
from services.inference.engine_thread import Finished, Token
from services.inference.generation import Generator
from services.inference.generation_ids import GenerationIds
from services.inference.http import api, error_responses
from services.inference.http.responses.store import ResponseStore
from services.inference.resolution import Base
from services.inference.tokenizer import Vocabulary

CHATML = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES = (
    "{%- if tools %}<|im_start|>system\nYou may call: {{ tools | tojson }} within <tool_call></tool_call><|im_end|>\n{% endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{%- for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Shows functions, and has them called within tags."""
MODEL = "acme/tiny"


def byte_tokenizer(template: str = CHATML, *further: str) -> Any:
    """A token for each byte, as byte-level BPE writes them, and special ones: three (`<|im_end|>` is 258) and further."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|endoftext|>", "<|im_end|>", *further]
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=None, additional_special_tokens=specials)
    made.chat_template = template
    return made


class Script:
    """Says the same tokens to everybody, each with the tokens beside it as candidates."""

    load = (0, 0)
    holds_calls = True

    def __init__(self, completion: Sequence[int], rows: int = 2) -> None:
        self.completion, self.rows = completion, rows
        self.requests: list[Request] = []
        self.embedded: list[str | list[int]] = []
        self.at_once = self.most_at_once = 0
        self.foreseen: list[object] = []
        """What the predictor of adapters was given."""

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Token | Finished]]:
        self.requests.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield self._tokens(request)
        finally:
            self.at_once -= 1

    async def _tokens(self, request: Request) -> AsyncIterator[Token | Finished]:
        for one in self.completion[: request.max_tokens]:
            await asyncio.sleep(0)
            yield self._token(one, request.alternatives)
        yield Finished("stop" if len(self.completion) < request.max_tokens else "length")

    async def likelihoods(self, prompt_ids: list[int], adapter: object) -> list[float]:
        return [one.logprob for one in await self.scores(prompt_ids, adapter, 0)]

    async def scores(self, prompt_ids: list[int], adapter: object, alternatives: int) -> list[Token]:
        return [self._token(one, alternatives) for one in prompt_ids[1:]]

    @staticmethod
    def _token(one: int, alternatives: int) -> Token:
        return Token(one, -0.5, tuple((one + 1 + more, -0.25 * (1 + more)) for more in range(alternatives)))

    async def embed(self, texts: Sequence[str | list[int]], adapter: object) -> Any:
        self.embedded += texts
        return np.tile(np.array([0.6, 0.8, 0.0], np.float32), (len(texts), 1))


class Obedient(Script):
    """Answers in the form that a request is held to: a call of the first function, an object, else as `Script` does."""

    def __init__(self, completion: Sequence[int], tokenizer: Any, rows: int = 2) -> None:
        super().__init__(completion, rows)
        self._free, self._tokenizer = completion, tokenizer

    async def _tokens(self, request: Request) -> AsyncIterator[Token | Finished]:
        written = None
        if request.grammar is not None:
            written = '{"name": "Ann"}'
            if called := re.search(r'call_0: "\{\\"name\\": \\"(\w+)', request.grammar.form.source):
                written = f'<tool_call>\n{{"name": "{called[1]}", "arguments": {written}}}\n</tool_call>'
        self.completion = self._tokenizer(written)["input_ids"] if written else self._free
        async for delivery in super()._tokens(request):
            yield delivery


class Sentences:
    """Stands for the sentence model."""

    name = "sentences"

    async def embed(self, texts: Sequence[str]) -> Any:
        return np.tile(np.array([0.6, 0.8, 0.0], np.float32), (len(texts), 1))


class Bucket:
    """Stands for the key-value bucket of stored responses."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.away = False

    async def put(self, key: str, value: bytes) -> None:
        if self.away:
            raise ConnectionError("the bus is away")
        self.values[key] = value

    async def get(self, key: str) -> bytes | None:
        if self.away:
            raise ConnectionError("the bus is away")
        return self.values.get(key)

    async def delete(self, key: str) -> None:
        self.values.pop(key, None)

    async def keys(self, pattern: str) -> list[str]:
        return [one for one in self.values if one.startswith(pattern.removesuffix("*"))]


def surface(
    completion: str | Sequence[int] = "Yes.",
    *,
    tokenizer: Any = None,
    own: GenerationSettings | None = None,
    rows: int = 2,
    embeddings: int | None = None,
    obedient: bool = False,
) -> tuple[httpx.AsyncClient, Script]:
    """A client of the routes, and the back end behind them."""
    app, backend = application(
        completion, tokenizer=tokenizer, own=own, rows=rows, embeddings=embeddings, obedient=obedient
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inference"), backend


def application(
    completion: str | Sequence[int] = "Yes.",
    *,
    tokenizer: Any = None,
    own: GenerationSettings | None = None,
    rows: int = 2,
    embeddings: int | None = None,
    obedient: bool = False,
    publications: Publications = NOTHING_PUBLISHED,
) -> tuple[FastAPI, Script]:
    """The routes, and the back end behind them."""
    tokenizer = tokenizer or byte_tokenizer()
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"] if isinstance(completion, str) else completion
    backend = Obedient(ids, tokenizer, rows) if obedient else Script(ids, rows)

    @asynccontextmanager
    async def lease_all(_adapters: object, _wait_credit: float = 0.0) -> AsyncIterator[None]:
        yield

    async def nowhere_else(_request: object, _chosen: object) -> None:
        return None

    hosted = ServedBaseModel(
        Base(MODEL, "0" * 64),
        Vocabulary(tokenizer, embeddings, ends=[258]),
        SimpleNamespace(lease_all=lease_all),  # type: ignore[arg-type]
        backend,  # type: ignore[arg-type]
        Limits(max_prompt_tokens=2048, max_completion_tokens=1024, default_completion_tokens=64, context=2048),
        own=own or GenerationSettings(),
    )
    generator = Generator(
        projection=SimpleNamespace(catalogue=Catalogue()),
        hosting=BaseModels([hosted]),
        preloading=SimpleNamespace(asked=lambda *given: backend.foreseen.append(given)),  # type: ignore[arg-type]
        publisher=SimpleNamespace(say=lambda *_, **__: None),  # type: ignore[arg-type]
        ids=GenerationIds(b"secret"),
        http=None,  # type: ignore[arg-type]
        router_url="",
        replica="r",
        fallbacks={},
        always_fall_back=False,
        count_by_adapter=False,
        publications=publications,
    )
    parts = SimpleNamespace(
        generator=generator,
        hosting=generator.hosting,
        forwarding=SimpleNamespace(answer=nowhere_else),
        gate=SimpleNamespace(require_open=lambda: None),
        embedder=Sentences(),
        responses=ResponseStore(Bucket(), b"secret"),  # type: ignore[arg-type]
        projection=generator.projection,
        started=0,
    )
    app = FastAPI()
    error_responses.install(app)
    app.include_router(api.router)
    caller = Caller("user", frozenset({"generate"}), frozenset({"*"}))
    app.dependency_overrides[api._parts] = lambda: parts
    app.dependency_overrides[api._asks] = lambda: caller
    [generates] = get_args(api.Generates)[1:]
    app.dependency_overrides[generates.dependency] = lambda: caller
    return app, backend


def chat(*turns: Any, **more: Any) -> dict[str, Any]:
    """A request body; a text is a user's turn."""
    messages = [{"role": "user", "content": one} if isinstance(one, str) else one for one in turns or ("Open?",)]
    return {"model": MODEL, "messages": messages, **more}


def official(http: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="none", base_url="http://inference/v1", http_client=http, max_retries=0)


def text_of(request: Any, tokenizer: Any = None) -> str:
    """The prompt that the back end was given."""
    return str((tokenizer or byte_tokenizer()).decode(request.prompt_ids))


async def streamed(http: Any, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (await http.post(path, json=body | {"stream": True})).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line[6:]) for line in lines[:-2]]
