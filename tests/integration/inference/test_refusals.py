"""Adapters that cannot serve: each is refused with its reason, and the base model never answers in its place."""

import io
from typing import Any

import pytest

from fleet_events import v1
from tests.integration.inference.conftest import answered, chat, eventually


@pytest.mark.requirement("AM-4.1")
@pytest.mark.requirement("AM-4.2")
async def test_an_adapter_of_another_base_model_is_refused_with_compatible_ones_suggested(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    made = make_adapter(seed=1)
    fitting = await registry.describe(made, domain)
    foreign = await registry.describe(
        made, domain, family=f"{domain}-dora", adapter_id=f"{domain}-dora-v1.0.0", base_model=_other_base()
    )
    await registry.activate(fitting)
    await registry.activate(foreign)
    await answered(inference.client, fitting.adapter_id)

    async def known() -> Any:
        return (await chat(inference.client, foreign.adapter_id)).status_code != 404

    await eventually(known)
    refused = await chat(inference.client, foreign.adapter_id)
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert error["code"] == "incompatible_base_model"
    assert error["compatible_adapters"][0] == fitting.adapter_id
    states = (await inference.client.get("/admin/adapters")).json()["adapters"]
    assert foreign.adapter_id not in states


async def test_a_corrupt_artifact_is_refused_and_never_answered_by_the_base_model(
    inference: Any, registry: Any, make_adapter: Any, servers: Any, domain: str, tmp_path: Any
) -> None:
    made = make_adapter(seed=91)  # no other test's: its artifact must not be in the disk cache yet
    adapter = await registry.describe(made, domain)
    damaged = bytearray(made.artifact.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    _overwrite(registry, adapter.artifact.blob, bytes(damaged))
    await registry.activate(adapter)
    error = await _refusal(inference, adapter.adapter_id)
    assert (error["code"], error["param"]) == ("artifact_corrupt", "model")
    # Repaired, it serves without a restart.
    _overwrite(registry, adapter.artifact.blob, made.artifact.read_bytes())

    async def repaired() -> Any:
        return (await chat(inference.client, adapter.adapter_id)).status_code == 200

    await eventually(repaired)


async def test_an_adapter_without_effect_is_refused(
    inference: Any, registry: Any, make_adapter: Any, domain: str
) -> None:
    adapter = await registry.describe(make_adapter(seed=22, scale=1e-9), domain)
    await registry.activate(adapter)
    assert (await _refusal(inference, adapter.adapter_id))["code"] == "no_effect"


async def test_an_adapter_whose_effect_is_not_the_one_its_trainer_saw_is_refused(
    inference: Any, registry: Any, make_adapter: Any, domain: str, peft_probe: Any
) -> None:
    made = make_adapter(seed=23)
    honest = await registry.describe(made, domain, probe=peft_probe(made))
    await registry.activate(honest)
    await answered(inference.client, honest.adapter_id)
    states = (await inference.client.get("/admin/adapters")).json()["adapters"]
    assert states[honest.adapter_id]["proof"]["compared"] is True
    other = await registry.describe(made, domain, "2.0.0", probe=peft_probe(make_adapter(seed=24)))
    await registry.activate(other)
    assert (await _refusal(inference, other.adapter_id))["code"] == "effect_differs"


async def test_a_missing_artifact_is_refused(inference: Any, registry: Any, make_adapter: Any, domain: str) -> None:
    digest = "0" * 64
    blob = v1.Blob(uri=f"s3://lorafleet/trainer/artifacts/{digest}", sha256=digest, bytes=1)
    adapter = await registry.describe(make_adapter(seed=1), domain, blob=blob)
    await registry.activate(adapter)
    assert (await _refusal(inference, adapter.adapter_id))["code"] == "artifact_missing"


def _other_base() -> v1.BaseModel:
    return v1.BaseModel(name="another", revision="e" * 64)


async def _refusal(inference: Any, model: str) -> dict[str, Any]:
    async def refused() -> Any:
        response = await chat(inference.client, model)
        assert response.status_code != 200, "it was answered"
        return response if response.status_code not in {404, 503} else None

    response = await eventually(refused)
    assert response.status_code == 422
    error: dict[str, Any] = response.json()["error"]
    return error


def _overwrite(registry: Any, blob: v1.Blob, data: bytes) -> None:
    bucket, _, key = blob.uri.removeprefix("s3://").partition("/")
    registry.blobs._client.put_object(bucket, key, io.BytesIO(data), len(data))
