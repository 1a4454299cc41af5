"""Inference on its real servers, with adapters of no registry: the benchmark publishes what a registry would."""

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
from nats.js import JetStreamContext

from benchmarks.peers import random_card
from fleet_cli.stack import Fleet, embedding_model_path
from fleet_cli.stack.environment import service_environment
from fleet_cli.stack.ports import choose
from fleet_cli.stack.single import SingleService
from fleet_events import Event, v1
from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import seal
from fleet_kit.settings import ServiceSettings
from lora_core import LoRACard, LoRAFormat, base_model

RANK = 16


@dataclass
class Stage:
    """Servers that run, one inference process on them, and the base model's folder."""

    fleet: Fleet
    model: Path
    service: SingleService
    client: httpx.AsyncClient
    jetstream: JetStreamContext
    blobs: Blobs
    token: str
    revisions: dict[str, int] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """Name of the base model in requests."""
        return self.service.env["LORAFLEET_BASE_MODEL_NAME"]

    async def store(self, card: LoRACard) -> v1.Artifact:
        """Puts a card where the trainer would."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "adapter.arrow"
            LoRAFormat.save(card, path)
            blob = await self.blobs.put("artifacts", path)
        return v1.Artifact(blob=blob, rank=card.rank, alpha=int(card.alpha))

    def adapter(self, artifact: v1.Artifact, domain: str, version: str = "1.0.0") -> v1.Adapter:
        """An adapter of this base model as events carry it."""
        return v1.Adapter(
            adapter_id=f"{domain}-lora-v{version}",
            family=f"{domain}-lora",
            domain=domain,
            method="lora",
            version=version,
            base_model=v1.BaseModel(name=self.base, revision=base_model.revision(self.model)),
            artifact=artifact,
        )

    async def activate(self, adapter: v1.Adapter) -> None:
        """What the registry publishes when an adapter becomes the one of its family."""
        await self._publish(v1.AdapterActivated(adapter=adapter, revision=self._next(adapter.family)))

    async def evict(self, adapter: v1.Adapter) -> None:
        """Out of its slot; its file stays in the disk cache."""
        while adapter.adapter_id not in await self._evict(adapter):
            await asyncio.sleep(0.01)  # the request before this one is not quite done with it

    async def ready(self, model: str) -> None:
        """Waits until the model answers."""
        while (await self.client.post("/v1/completions", json=ask(model))).status_code != 200:
            await asyncio.sleep(0.05)

    async def metric(self, name: str) -> float:
        """The sum of a counter's values over its labels."""
        text = (await self.client.get("/metrics")).text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.split("{")[0] == name)

    async def _evict(self, adapter: v1.Adapter) -> list[str]:
        answer = await self.client.post("/admin/evict", json={"models": [adapter.adapter_id]})
        evicted: list[str] = answer.raise_for_status().json()["evicted"]
        return evicted

    def _next(self, family: str) -> int:
        self.revisions[family] = self.revisions.get(family, 0) + 1
        return self.revisions[family]

    async def _publish(self, event: Event) -> None:
        out = seal(event, service="registry", entity="benchmark", trace={})
        await self.jetstream.publish(out.subject, out.body, headers=out.headers)


def ask(model: str, max_tokens: int = 1) -> dict[str, object]:
    """A short request."""
    return {
        "model": model,
        "prompt": "What can you help me with?",
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def card(model: Path, seed: int, rank: int = RANK) -> LoRACard:
    """Random matrices on all seven projections, strong enough that greedy answers differ."""
    return replace(random_card(f"serving-{seed}", base_model.linear_shapes(model), rank, seed), alpha=8.0 * rank)


@asynccontextmanager
async def stage(fleet: Fleet, model: Path, **settings: str) -> AsyncIterator[Stage]:
    """One inference process, its settings changed by LORAFLEET_* variables, named without the prefix."""
    name = f"{secrets.token_hex(3)}"
    env = service_environment(
        "inference",
        fleet.home,
        {**fleet.ports, **choose(("inference",), {})},
        fleet.credentials,
        embedding_model_path(),
    )
    own = {"BASE_MODEL": str(model), "REPLICA": f"benchmark-{name}", "CACHE_DIR": str(fleet.home.cache / name)}
    env |= {f"LORAFLEET_{key.upper()}": value for key, value in (own | settings).items()}
    single = SingleService("inference", env, logs=fleet.home.logs, run=fleet.home.run)
    token = fleet.info.token("admin")
    admin = await fleet.connect_nats("admin")
    try:
        await asyncio.to_thread(single.start)
        async with httpx.AsyncClient(
            base_url=single.url, headers={"Authorization": f"Bearer {token}"}, timeout=120, trust_env=False
        ) as client:
            yield Stage(fleet, model, single, client, admin.jetstream(), _blobs(fleet), token)
    finally:
        await asyncio.to_thread(single.stop)
        await admin.close()


def _blobs(fleet: Fleet) -> Blobs:
    env = service_environment("trainer", fleet.home, fleet.ports, fleet.credentials, fleet.info.embedding_model)
    values: Mapping[str, str] = {key.removeprefix("LORAFLEET_").lower(): value for key, value in env.items()}
    return Blobs("trainer", ServiceSettings.model_validate(values))


async def first_token(stage: Stage, model: str) -> float:
    """Seconds from the request to the first token, sent again at once while the model is not known yet."""
    begun = time.perf_counter()
    body = ask(model, 2) | {"stream": True}
    while True:
        async with stage.client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code == 200:
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and json.loads(line.removeprefix("data: ")).get("choices"):
                        return time.perf_counter() - begun
        await asyncio.sleep(0.001)


async def first_token_of(stage: Stage, model: str, text: str) -> tuple[float, int]:
    """Seconds to the first token of an answer to a text, which is read to its end; and the prompt's tokens."""
    body = ask(model, 2) | {"prompt": text, "stream": True, "stream_options": {"include_usage": True}}
    begun, first, tokens = time.perf_counter(), 0.0, 0
    async with stage.client.stream("POST", "/v1/completions", json=body) as response:
        async for line in response.raise_for_status().aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk.get("choices") and not first:
                first = time.perf_counter() - begun
            tokens = (chunk.get("usage") or {}).get("prompt_tokens", tokens)
    return first, tokens
