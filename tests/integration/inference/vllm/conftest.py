"""Inference on two vLLM servers. They are ours and follow the API of vLLM; `test_vllm_real.py` runs the same against vLLM itself."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService, RunService
from tests.integration.inference.conftest import chat, eventually
from tests.integration.inference.vllm_server import VllmServer

KEY = "key-of-the-servers"


@pytest.fixture(scope="module")
def pair(tiny_model: Path) -> Iterator[tuple[VllmServer, VllmServer]]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    servers = tuple(VllmServer(model, "tiny", max_lora_rank=8, api_key=KEY) for _ in range(2))
    for server in servers:
        server.start()
    yield servers  # type: ignore[misc]
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what an earlier life of the service left."""
    folder = tmp_path_factory.mktemp("for-vllm")
    (folder / "old-lora-v1.0.0@0123456789ab").mkdir()
    return folder


@pytest.fixture(scope="module")
async def inference(
    run_service: RunService,
    settings_of_inference: dict[str, str],
    pair: tuple[VllmServer, VllmServer],
    adapter_folder: Path,
) -> AsyncIterator[RunningService]:
    changes = {
        "LORAFLEET_VLLM_SERVERS": json.dumps([server.url for server in pair]),
        "LORAFLEET_VLLM_API_KEY": KEY,
        "LORAFLEET_VLLM_ADAPTER_DIR": str(adapter_folder),
        "LORAFLEET_VLLM_RECONCILE": "0.3",
    }
    async with run_service("inference", **settings_of_inference, **changes) as running:
        yield running


@pytest.fixture
async def vllm(inference: Any, pair: tuple[VllmServer, VllmServer]) -> AsyncIterator[list[VllmServer]]:
    """Both, up and known to the service before and after each test."""
    yield list(pair)
    for server in pair:
        server.delay = 0.0
        server.start()

    async def served() -> bool:
        return (await chat(inference.client, "tiny", max_tokens=1)).status_code == 200

    await eventually(served)


def name_of(adapter: v1.Adapter) -> str:
    return f"{adapter.adapter_id}@{adapter.artifact.blob.sha256[:12]}"


def holders(servers: list[VllmServer], adapter: v1.Adapter) -> list[VllmServer]:
    return [server for server in servers if name_of(adapter) in server.adapters]


async def held(servers: list[VllmServer], adapter: v1.Adapter) -> VllmServer:
    async def one() -> list[VllmServer]:
        return holders(servers, adapter)

    [server] = await eventually(one)
    return server
