"""Inference on real servers with a tiny base model, adapters made with PEFT, and what PEFT itself answers with them."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.js import JetStreamContext

from fleet_events import Event, v1
from fleet_events.topology import row_of
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import seal
from fleet_kit.settings import ServiceSettings
from lora_core import LoRAFormat, base_model
from lora_core.interop import from_peft
from tests.conftest import RunningService, RunService, ServiceEnv

QUESTION = "What does the tide do at noon?"
TOKENS = 12


class _TrainerSettings(ServiceSettings):
    pass


@pytest.fixture(scope="session")
def tiny_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and the real tokenizer; answers nonsense, deterministically."""
    return tiny_copy(tmp_path_factory.mktemp("models") / "tiny", base_model, seed=7, intermediate_size=96)


@pytest.fixture(scope="session")
def second_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, with other shapes."""
    return tiny_copy(tmp_path_factory.mktemp("models") / "second", base_model, seed=8, intermediate_size=80)


def tiny_copy(folder: Path, tokenizer: Path, *, seed: int, intermediate_size: int) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=intermediate_size,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32 each: vLLM has no attention for smaller heads on a CPU
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in tokenizer.glob("*"):
        if file.name.startswith(("tokenizer", "chat_template", "special_tokens", "vocab", "merges")):
            shutil.copy(file, folder)
    return folder


@dataclass(frozen=True)
class Made:
    """An adapter's artifact, the PEFT folder that it was made from, and the base model that it is for."""

    base: Path
    peft: Path
    artifact: Path
    rank: int


@pytest.fixture(scope="session")
def make_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """`make_adapter(seed=3, scale=1.0)`: a PEFT adapter with random weights, as an artifact."""

    def make(seed: int, scale: float = 1.0, rank: int = 4, base: Path = tiny_model) -> Made:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        folder = tmp_path_factory.mktemp("adapter")
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
                parameter.data.mul_(scale)
        model.save_pretrained(folder / "peft")
        LoRAFormat.save(from_peft(folder / "peft"), folder / "adapter.arrow")
        return Made(base, folder / "peft", folder / "adapter.arrow", rank)

    return make


@pytest.fixture(scope="session")
def expected(tiny_model: Path) -> Callable[..., str]:
    """What transformers and PEFT answer by themselves, greedily: what must be served."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    answers: dict[tuple[Path | None, str, int], str] = {}

    def answer(made: Made | None = None, question: str = QUESTION, tokens: int = TOKENS) -> str:
        key = (made.peft if made else None, question, tokens)
        if key not in answers:
            base = made.base if made else tiny_model
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            if made:
                model = PeftModel.from_pretrained(model, made.peft)
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
            with torch.inference_mode():
                out = model.generate(**ids, max_new_tokens=tokens, do_sample=False, pad_token_id=2)
            answers[key] = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return answers[key]

    return answer


@dataclass
class Registry:
    """Says what the registry says, with artifacts stored as the trainer stores them."""

    jetstream: JetStreamContext
    blobs: Blobs
    revisions: dict[str, int] = field(default_factory=dict)

    async def describe(self, made: Made, domain: str, version: str = "1.0.0", **changes: Any) -> v1.Adapter:
        """The adapter as events carry it; its artifact is in the object store afterwards."""
        blob = changes.pop("blob", None) or await self.blobs.put("artifacts", made.artifact)
        fields: dict[str, Any] = {
            "adapter_id": f"{domain}-lora-v{version}",
            "family": f"{domain}-lora",
            "domain": domain,
            "method": "lora",
            "version": version,
            "base_model": v1.BaseModel(name=made.base.name, revision=base_model.revision(made.base)),
            "artifact": v1.Artifact(blob=blob, rank=made.rank, alpha=2 * made.rank),
        }
        return v1.Adapter(**{**fields, **changes})

    async def register(self, adapter: v1.Adapter) -> None:
        await self.publish(v1.AdapterRegistered(adapter=adapter, revision=self.next(adapter.family)))

    async def activate(self, adapter: v1.Adapter) -> None:
        await self.publish(v1.AdapterActivated(adapter=adapter, revision=self.next(adapter.family)))

    async def deactivate(self, adapter: v1.Adapter) -> None:
        await self.publish(
            v1.AdapterDeactivated(
                adapter_id=adapter.adapter_id,
                family=adapter.family,
                domain=adapter.domain,
                revision=self.next(adapter.family),
            )
        )

    def next(self, family: str) -> int:
        self.revisions[family] = self.revisions.get(family, 0) + 1
        return self.revisions[family]

    async def publish(self, event: Event) -> None:
        out = seal(event, service="registry", entity="test", trace={})
        await self.jetstream.publish(out.subject, out.body, headers=out.headers)

    async def published(self, event: type[Event]) -> list[Event]:
        """Every event of this class in the stream."""
        subject = row_of(event).subject
        subscription = await self.jetstream.subscribe(subject, stream=row_of(event).stream.name, ordered_consumer=True)
        try:
            info = await self.jetstream.stream_info(row_of(event).stream.name, subjects_filter=subject)
            count = (info.state.subjects or {}).get(subject, 0)
            return [event.from_json((await subscription.next_msg(timeout=5)).data) for _ in range(count)]
        finally:
            await subscription.unsubscribe()


@pytest.fixture
async def registry(jetstream: JetStreamContext, service_env: ServiceEnv) -> Registry:
    env = service_env("trainer")
    settings = _TrainerSettings(
        **{
            name.removeprefix("LORAFLEET_").lower(): value
            for name, value in env.items()
            if name.removeprefix("LORAFLEET_").lower() in ServiceSettings.model_fields
        }
    )
    return Registry(jetstream, Blobs("trainer", settings))


@pytest.fixture(scope="module")
def settings_of_inference(
    tiny_model: Path, second_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return {
        "LORAFLEET_BASE_MODEL": str(tiny_model),
        "LORAFLEET_BASE_MODEL_NAME": "tiny",
        "LORAFLEET_FURTHER_BASE_MODELS": json.dumps({"second": str(second_model)}),
        "LORAFLEET_SLOTS": "2",
        "LORAFLEET_MAX_RANK": "4",  # that of the adapters: each takes a whole slot
        "LORAFLEET_FAILED_RETRY": "0.2",
        "LORAFLEET_MAX_PROMPT_TOKENS": "300",
        "LORAFLEET_THREADS": "1",
        "LORAFLEET_REPLICA": "replica-of-the-test",
        # Memory that others take on this machine is not the matter of these tests.
        "LORAFLEET_PRESSURE_MEDIUM": "9",
        "LORAFLEET_PRESSURE_HIGH": "9",
        "LORAFLEET_PRESSURE_CRITICAL": "9",
        "LORAFLEET_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="module")
async def inference(run_service: RunService, settings_of_inference: dict[str, str]) -> AsyncIterator[RunningService]:
    async with run_service("inference", **settings_of_inference) as running:
        yield running


@pytest.fixture
def domain() -> str:
    """A domain that no other test uses."""
    return f"d{secrets.token_hex(4)}"


@pytest.fixture
async def evaluator(inference: RunningService, token_of: Callable[[str], str]) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {token_of('evaluator')}"}
    async with httpx.AsyncClient(base_url=inference.url, headers=headers, timeout=60) as client:
        yield client


async def chat(client: httpx.AsyncClient, model: str, **fields: Any) -> httpx.Response:
    """One greedy chat answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": TOKENS,
        **fields,
    }
    return await client.post("/v1/chat/completions", json=body)


async def answered(client: httpx.AsyncClient, model: str, seconds: float = 30, **fields: Any) -> dict[str, Any]:
    """The answer, once the model is known: events take a moment to arrive."""
    async with asyncio.timeout(seconds):
        while (response := await chat(client, model, **fields)).status_code in {404, 409, 503}:
            await asyncio.sleep(0.05)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def text_of(body: dict[str, Any]) -> str:
    content: str = body["choices"][0]["message"]["content"]
    return content


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """Asks until the answer is true, and returns it."""
    async with asyncio.timeout(seconds):
        while not (found := await check()):
            await asyncio.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def peft_probe(tiny_model: Path) -> Callable[[Made], v1.Probe]:
    """What a trainer records of an adapter: its logits of the probe prompt's last position, computed by PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def probe(made: Made) -> v1.Probe:
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), made.peft
        )
        prompt = "Which probe is this?"
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            adapted = model(**ids).logits[0, -1]
            with model.disable_adapter():
                base = model(**ids).logits[0, -1]
        top = adapted.topk(8)
        return v1.Probe(
            prompt=prompt,
            top_ids=tuple(top.indices.tolist()),
            top_logits=tuple(top.values.tolist()),
            max_delta=float((adapted - base).abs().max()),
        )

    return probe
