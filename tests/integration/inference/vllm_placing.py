"""A fleet of stand-in vLLM servers with a tiny model, and an adapter placed on it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet_events import v1
from lora_core import LoRAFormat
from lora_core.interop import to_peft
from lora_core.sampling import Request
from services.inference.engine_thread import Token
from services.inference.loading.proof import Exactness
from services.inference.tokenizer import Vocabulary
from services.inference.vllm.backend import VllmBackend
from services.inference.vllm.client import VllmClient
from services.inference.vllm.fleet import Placed, VllmFleet, served_name
from services.inference.vllm.hosting import describe
from services.inference.vllm.loader import VllmProof
from tests.integration.inference.conftest import Made
from tests.integration.inference.vllm_server import VllmServer

PROMPT = [10, 200, 3000, 40]


NEVER = 3600.0


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture
def servers(model: Any) -> Iterator[list[VllmServer]]:
    started = [VllmServer(model, "tiny") for _ in range(3)]
    for server in started:
        server.start()
    yield started
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def vocabulary(tiny_model: Path) -> Vocabulary:
    return Vocabulary(describe(tiny_model).tokenizer)


OpenFleet = Callable[..., Any]


@pytest.fixture
def open_fleet(servers: list[VllmServer], vocabulary: Vocabulary, tmp_path: Path) -> OpenFleet:
    """`async with open_fleet(copies=2) as (fleet, backend):`"""

    @asynccontextmanager
    async def opened(
        copies: int = 1, every: float = NEVER, stops: frozenset[int] = frozenset(), neutral: Path | None = None
    ) -> AsyncIterator[tuple[VllmFleet, VllmBackend]]:
        fleet = VllmFleet(
            [VllmClient(server.url) for server in servers],
            base_name="tiny",
            folder=tmp_path,
            prove=VllmProof(vocabulary, neutral.name if neutral else "tiny", Exactness()),
            copies=copies,
            most=4,
            every=every,
            neutral=neutral,
        )
        await fleet.open()
        backend = VllmBackend(fleet, stops=stops, rows=8, queue_limit=8)
        try:
            yield fleet, backend
        finally:
            await backend.close()

    return opened


@pytest.fixture
def placed(make_adapter: Callable[..., Made], tmp_path: Path) -> Callable[..., Placed]:
    def make(seed: int, name: str = "shop-lora-v1.0.0") -> Placed:
        made = make_adapter(seed=seed)
        adapter = v1.Adapter(
            adapter_id=name,
            family="shop-lora",
            domain="shop",
            method="lora",
            version="1.0.0",
            base_model=v1.BaseModel(name="tiny", revision="0" * 64),
            artifact=v1.Artifact(
                blob=v1.Blob(uri="s3://artifacts/a", sha256=f"{seed:02x}" * 32, size=1), rank=4, alpha=8
            ),
        )
        folder = tmp_path / served_name(adapter)
        to_peft(LoRAFormat.load(made.artifact), folder)
        return Placed(adapter, folder, 14)

    return make


async def tokens(backend: VllmBackend, adapter: Any, count: int = 4) -> list[int]:
    request = Request(prompt_ids=PROMPT, adapter=adapter, max_tokens=count)
    async with backend.generate(request) as deliveries:
        return [one.id async for one in deliveries if isinstance(one, Token)]


def holders(servers: list[VllmServer], placed: Placed) -> list[VllmServer]:
    return [server for server in servers if placed.name in server.adapters]


async def load_by_hand(server: VllmServer, name: str, folder: Path) -> None:
    client = VllmClient(server.url)
    await client.load(name, folder)
    await client.close()
