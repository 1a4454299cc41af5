"""A registry that imports from elsewhere, a hub for it to import from, and what it must hold afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fleet_events import v1
from lora_core import LoRACard, LoRAFormat
from lora_core.base_model import linear_shapes
from lora_core.interop import to_peft
from tests.conftest import RunningService, RunService
from tests.integration.registry import hub_server
from tests.integration.registry.conftest import Upstream, card
from tests.integration.registry.hub_server import HubServer

TOKEN = "hf_of_the_caller"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with hub_server.running() as server:
        yield server


@pytest.fixture(scope="module")
async def registry(
    run_service: RunService, base_model: Path, hub: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    """A registry that may ask the hub and its storage, and has a token of its own that it must never send."""
    async with run_service(
        "registry",
        LORAFLEET_BASE_MODEL=str(base_model),
        LORAFLEET_IMPORT_PRIVATE_HOSTS=json.dumps(
            [hub.url.removeprefix("http://"), hub.storage.removeprefix("http://")]
        ),
        HF_ENDPOINT=hub.url,
        HF_HUB_OFFLINE="0",
        HF_HOME=str(tmp_path_factory.mktemp("hf")),
        HF_TOKEN="hf_of_the_operator",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def made(base_model: Path) -> LoRACard:
    return card(linear_shapes(base_model))


@pytest.fixture(scope="module")
def peft(made: LoRACard, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a PEFT folder."""
    folder = tmp_path_factory.mktemp("peft")
    to_peft(made, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def fetch(registry: RunningService, **fields: object) -> httpx.Response:
    return await registry.client.post("/v1/adapters/import", json=fields)


async def assert_holds(made: LoRACard, found: dict[str, Any], upstream: Upstream, folder: Path) -> None:
    """The artifact and the checkpoint of a version have the card's numbers."""
    again = LoRAFormat.load(await upstream.blobs.fetch(v1.Blob(**found["artifact"]), folder / "back"))
    assert again.weights.keys() == made.weights.keys()
    for module, own in made.weights.items():
        np.testing.assert_array_equal(again.weights[module].a, own.a)
        np.testing.assert_array_equal(again.weights[module].b, own.b)
        assert again.scaling(module) == made.scaling(module)
