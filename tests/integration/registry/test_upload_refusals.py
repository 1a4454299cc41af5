"""Uploads that the registry refuses: by field, by size, by quota, by load; nothing of them is registered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lora_core import LoRACard, LoRAWeights
from lora_core.interop import to_peft
from tests.conftest import RunningService
from tests.integration.registry.conftest import Get, Upstream, card
from tests.integration.registry.uploads import files_of, upload

pytestmark = pytest.mark.integration


def _config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _weights(folder: Path, upstream: Upstream, change: Callable[[str, LoRAWeights], tuple[str, LoRAWeights]]) -> None:
    good = card(upstream.shapes)
    weights = dict(change(module, pair) for module, pair in good.weights.items())
    to_peft(LoRACard("test", 4, 8.0, ("q_proj",), weights), folder)


def _spoil(fault: str, folder: Path, upstream: Upstream) -> None:
    weights = folder / "adapter_model.safetensors"
    match fault:
        case "not safetensors":
            weights.write_bytes(b"not safetensors at all")
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "pickle":
            weights.rename(folder / "adapter_model.bin")
        case "no weights":
            weights.unlink()
        case "no config":
            (folder / "adapter_config.json").unlink()
        case "config is no json":
            (folder / "adapter_config.json").write_text("{")
        case "alpha of 4,000 digits":
            config = (folder / "adapter_config.json").read_text()
            (folder / "adapter_config.json").write_text(
                config.replace('"lora_alpha": 8', f'"lora_alpha": {"9" * 4000}')
            )
        case "header of 20 MB":
            header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' + b" " * (20 << 20) + b"}"
            weights.write_bytes(len(header).to_bytes(8, "little") + header)
        case "other peft type":
            _config(folder, peft_type="IA3")
        case "dora":
            _config(folder, use_dora=True)
        case "rank differs":
            _config(folder, r=8)
        case "alpha zero":
            _config(folder, lora_alpha=0)
        case "alpha is text":
            _config(folder, lora_alpha="eight")
        case "nan":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a * np.float32("nan"), w.b)))
        case "infinity":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a, w.b + np.float32("inf"))))
        case "zero delta":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a, w.b * 0)))
        case "unknown module":
            _weights(folder, upstream, lambda m, w: (m.replace("q_proj", "z_proj"), w))
        case "other model's shape":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a[:, :-1].copy(), w.b)))


@pytest.mark.requirement("AM-1.1")
@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ("not safetensors", "adapter_model.safetensors"),
        ("truncated", "adapter_model.safetensors"),
        ("pickle", "files"),
        ("no weights", "files"),
        ("no config", "files"),
        ("config is no json", "adapter_config.json"),
        ("alpha of 4,000 digits", "adapter_config.json"),
        ("header of 20 MB", "adapter_model.safetensors"),
        ("other peft type", "peft_type"),
        ("dora", "use_dora"),
        ("rank differs", "model.layers.0.self_attn.q_proj rank"),
        ("alpha zero", "alpha"),
        ("alpha is text", "lora_alpha"),
        ("nan", "model.layers.0.self_attn.q_proj a"),
        ("infinity", "model.layers.0.self_attn.q_proj b"),
        ("zero delta", "weights"),
        ("unknown module", "module"),
        ("other model's shape", "model.layers.0.self_attn.q_proj a shape"),
    ],
)
async def test_what_cannot_serve_is_refused_by_field_and_nothing_is_registered(
    registry: RunningService, upstream: Upstream, adapters: Get, peft: Path, domain: str, fault: str, field: str
) -> None:
    _spoil(fault, peft, upstream)
    answer = await upload(registry.client, peft, domain=domain)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field, answer.text
    assert await adapters(domain) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"domain": "Not A Domain"}, "domain"),
        ({"version": "1.2"}, "version"),
        ({"version": "v1.2.3"}, "version"),
        ({"method": "prefix-tuning"}, "method"),
        ({"bump": "huge"}, "bump"),
        ({"base_model": "gpt-17"}, "base_model.name"),
        ({"base_model_revision": "0" * 64}, "base_model.revision"),
        ({"base_model_revision": "short"}, "base_model_revision"),
        ({"colour": "blue"}, "colour"),
        ({"description": "a\x00b"}, "description"),
        ({"reason": "a\x00b"}, "reason"),
        ({"golden_dataset_id": "\x00"}, "golden_dataset_id"),
    ],
)
async def test_a_bad_field_is_named(
    registry: RunningService, peft: Path, domain: str, fields: dict[str, str], field: str
) -> None:
    answer = await upload(registry.client, peft, **({"domain": domain} | fields))
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field, answer.text


async def test_an_upload_over_the_bound_is_refused_before_it_arrives(
    registry: RunningService, run_service: Any, base_model: Path
) -> None:
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_MAX_ARTIFACT_BYTES": str(1 << 20)}
    async with run_service("registry", **bounds) as small:
        url = httpx.URL(small.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        # Without the body: a client that is still sending when the connection closes may miss the answer.
        writer.write(
            f"POST /v1/adapters HTTP/1.1\r\nHost: registry\r\nAuthorization: {small.client.headers['Authorization']}\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {16 << 20}\r\n\r\n".encode()
        )
        async with asyncio.timeout(10):
            status = await reader.readline()
        writer.close()
    assert b" 413 " in status, status


async def test_a_slow_pattern_of_one_caller_delays_no_other(
    registry: RunningService, upstream: Upstream, adapters: Get, peft: Path, domain: str
) -> None:
    """10 kB of `rank_pattern` that `re` searches with for ever; health is asked all the while."""
    patterns = {f"(a?){{25}}a{{25}}|(x+x+)+y{number}|(.*a){{20}}": 4 for number in range(60)}
    _config(peft, rank_pattern=patterns)
    uploading = asyncio.create_task(upload(registry.client, peft, domain=domain))
    slowest = 0.0
    while not uploading.done():
        asked = time.monotonic()
        assert (await registry.client.get("/healthz")).status_code == 200
        slowest = max(slowest, time.monotonic() - asked)
        await asyncio.sleep(0.02)
    answer = await uploading
    assert answer.status_code == 201, answer.text
    assert slowest < 2.0, slowest


async def test_the_quota_of_a_domain_ends_its_uploads_and_no_other_s(
    run_service: Any, base_model: Path, peft: Path, domain: str
) -> None:
    size = sum(len(content) for _, (_, content, _) in files_of(peft))
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_MAX_UPLOADED_BYTES": str(int(size * 3.5))}
    async with run_service("registry", **bounds) as small:
        assert (await upload(small.client, peft, domain=domain)).status_code == 201
        over = await upload(small.client, peft, domain=domain)
        assert (over.status_code, over.json()["field"]) == (413, "domain"), over.text
        assert (await upload(small.client, peft, domain=f"{domain}-b")).status_code == 201


async def test_uploads_at_once_beyond_the_bound_are_told_to_wait(
    run_service: Any, base_model: Path, peft: Path, domain: str
) -> None:
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_MAX_UPLOADS_AT_ONCE": "1"}
    async with run_service("registry", **bounds) as small:
        answers = await asyncio.gather(*(upload(small.client, peft, domain=domain) for _ in range(4)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] == 201
        assert statuses[-1] == 429, statuses
        assert (await upload(small.client, peft, domain=domain)).status_code == 201


async def test_a_check_that_takes_too_long_is_ended_and_the_upload_refused(
    run_service: Any, base_model: Path, peft: Path, domain: str
) -> None:
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_INSPECTION_SECONDS": "0.001"}
    async with run_service("registry", **bounds) as hasty:
        answer = await upload(hasty.client, peft, domain=domain)
        assert (answer.status_code, answer.json()["field"]) == (422, "files"), answer.text
        assert "took more than" in answer.json()["detail"]


async def test_a_body_that_is_no_form_is_refused(registry: RunningService) -> None:
    answer = await registry.client.post("/v1/adapters", json={"domain": "x"})
    assert answer.status_code == 415
