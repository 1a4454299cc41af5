"""Adapters at run time through HTTP: what is preloaded, pinned, evicted and drained by a running service."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.inference.conftest import QUESTION, answered, chat, eventually, text_of

PINNED, WORKFLOW = "pinned", ("draft", "edit")


@pytest.fixture(scope="module")
def settings_of_inference(settings_of_inference: dict[str, str]) -> dict[str, str]:
    return settings_of_inference | {
        "LORAFLEET_FURTHER_BASE_MODELS": "{}",
        "LORAFLEET_ENVIRONMENT": "production",
        "LORAFLEET_SLOTS": "3",
        "LORAFLEET_PINNED": json.dumps([f"{PINNED}-lora"]),
        "LORAFLEET_WORKFLOWS": json.dumps({"writing": [f"{domain}-lora" for domain in WORKFLOW]}),
        "LORAFLEET_ADAPTER_TYPES": json.dumps({"fine-lora": "workflow-builder", "coarse-lora": "workflow-builder"}),
    }


async def shown(inference: Any, adapter: Any) -> dict[str, Any]:
    states = (await inference.client.get("/admin/adapters")).json()["adapters"]
    return states.get(adapter.adapter_id, {})


async def in_slot(inference: Any, *adapters: Any) -> bool:
    return all([(await shown(inference, one)).get("state") == "loaded" for one in adapters])


@pytest.fixture
async def active(inference: Any, registry: Any, make_adapter: Any) -> Any:
    """`active(seed, domain)`: an adapter that the service knows as active."""

    async def make(seed: int, domain: str) -> Any:
        adapter = await registry.describe(make_adapter(seed=seed), domain)
        await registry.activate(adapter)
        await answered(inference.client, adapter.adapter_id, max_tokens=1)
        return adapter

    return make


@pytest.mark.requirement("AS-5.1")
@pytest.mark.requirement("AS-4.2")
async def test_the_adapter_that_comes_next_in_a_callers_sequence_is_in_a_slot_before_it_is_asked_for(
    inference: Any, active: Any, domain: str
) -> None:
    pinned = await active(50, PINNED)
    cycle = [await active(51 + place, f"{domain}{place}") for place in range(3)]
    for _ in range(4):
        for one in cycle:
            assert (await chat(inference.client, one.family, max_tokens=1)).status_code == 200
    for one in cycle[:2]:
        assert (await chat(inference.client, one.family, max_tokens=1)).status_code == 200
    # Two slots are left by the pinned one, and the last two requests were for others.
    await eventually(lambda: in_slot(inference, cycle[2]))
    before = await shown(inference, cycle[2])
    assert before["uses"] == 5
    assert before["wanted_as"] == "activation"
    assert (await chat(inference.client, cycle[2].family, max_tokens=1)).status_code == 200
    after = await shown(inference, cycle[2])
    assert (after["uses"], after["loads"]) == (before["uses"] + 1, before["loads"])
    assert after["last_used"] > before["last_used"]
    metrics = (await inference.client.get("/metrics")).text
    assert 'lorafleet_inference_predictions_total{outcome="hit"}' in metrics
    kept = await shown(inference, pinned)
    assert (kept["state"], kept["pinned"], kept["loads"]) == ("loaded", True, 1)


@pytest.mark.requirement("AS-5.2")
async def test_naming_a_workflow_brings_its_adapters_in_even_for_the_base_model(inference: Any, active: Any) -> None:
    adapters = [await active(61 + place, domain) for place, domain in enumerate(WORKFLOW)]
    await inference.client.post("/admin/evict", json={})
    assert not await in_slot(inference, *adapters)
    response = await chat(inference.client, "tiny", max_tokens=1, metadata={"workflow": "writing"})
    assert response.status_code == 200
    await eventually(lambda: in_slot(inference, *adapters))
    await inference.client.post("/admin/evict", json={"models": [one.family for one in adapters]})
    response = await inference.client.post("/admin/preload", json={"workflow": "writing"})
    assert (response.status_code, response.json()["missing"]) == (202, [])
    await eventually(lambda: in_slot(inference, *adapters))


@pytest.mark.requirement("AS-7.1")
async def test_an_adapter_is_served_compressed_as_its_profile_says_and_its_answers_name_the_approved_artifact(
    inference: Any, active: Any
) -> None:
    adapter = await active(71, "fine")
    answer = await answered(inference.client, adapter.adapter_id)
    assert answer["lorafleet"]["artifact_sha256"] == adapter.artifact.blob.sha256
    proof = (await shown(inference, adapter))["proof"]
    assert proof["storage"] == "int8"
    assert 0.98 <= proof["agreement"] <= 1
    files = {one["name"]: one["bytes"] for one in (await inference.client.get("/admin/cache")).json()["files"]}
    sha256 = adapter.artifact.blob.sha256
    assert files[f"{sha256}.int8.arrow"] < files[f"{sha256}.arrow"]
    await inference.client.post("/admin/evict", json={"models": [adapter.adapter_id]})
    assert text_of(await answered(inference.client, adapter.adapter_id)) == text_of(answer)
    assert (await shown(inference, adapter))["loads"] == 2
    # It can be made again from the artifact, which is what counts.
    folder = Path((await inference.client.get("/admin/cache")).json()["folder"])
    (folder / sha256[:2] / f"{sha256}.int8.arrow").unlink()
    await inference.client.post("/admin/evict", json={"models": [adapter.adapter_id]})
    assert text_of(await answered(inference.client, adapter.adapter_id)) == text_of(answer)
    assert (await shown(inference, adapter))["proof"] == proof


@pytest.mark.requirement("AS-7.1")
async def test_an_adapter_that_compression_would_harm_is_served_as_it_was_trained_and_that_is_logged(
    inference: Any, registry: Any, make_adapter: Any, expected: Any
) -> None:
    made = make_adapter(seed=72, scale=30.0)
    adapter = await registry.describe(made, "coarse")
    await registry.activate(adapter)
    assert text_of(await answered(inference.client, adapter.adapter_id)) == expected(made)
    proof = (await shown(inference, adapter))["proof"]
    assert (proof["storage"], proof["agreement"]) == ("F16", None)
    assert "agreement" in proof["not_compressed"]


async def test_operators_see_the_cache_and_the_memory_and_evict_what_is_neither_in_use_nor_pinned(
    inference: Any, active: Any, domain: str
) -> None:
    adapter = await active(65, domain)
    cache = (await inference.client.get("/admin/cache")).json()
    assert f"{adapter.artifact.blob.sha256}.arrow" in [one["name"] for one in cache["files"]]
    assert 0 < cache["bytes"] < cache["limit"]
    pressure = (await inference.client.get("/admin/pressure")).json()
    assert pressure["level"] == "low"
    assert pressure["readings"][0]["used"] > 0
    assert pressure["resident"] > 50 * 1024**2
    done = await inference.client.post("/admin/evict", json={"models": [adapter.family, f"{PINNED}-lora"]})
    assert done.json() == {"evicted": [adapter.adapter_id], "kept": {f"{PINNED}-lora-v1.0.0": "pinned"}}
    for path, body in (
        ("preload", {"models": ["ghost"]}),
        ("evict", {"models": ["ghost"]}),
        ("preload", {"workflow": "ghost"}),
    ):
        refused = await inference.client.post(f"/admin/{path}", json=body)
        assert (refused.status_code, "ghost" in refused.json()["detail"]) == (404, True)
    assert (await inference.client.post("/admin/preload", json={})).status_code == 422


async def test_a_drained_replica_completes_what_runs_refuses_what_is_new_and_can_be_opened_again(
    inference: Any, active: Any, domain: str
) -> None:
    adapter = await active(66, domain)
    body = {
        "model": adapter.adapter_id,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 100,
        "stream": True,
    }
    lines: list[str] = []
    async with inference.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        async for line in stream.aiter_lines():
            if not lines:
                drained = await inference.client.post("/admin/drain", json={})
                assert drained.json()["rows_running"] == 1
                refused = await chat(inference.client, adapter.adapter_id)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
                assert int(refused.headers["Retry-After"]) > 0
                ready = await inference.client.get("/readyz")
                assert (ready.status_code, ready.json()["checks"]["accepting"]) == (503, "it is being drained")
            lines.append(line)
    assert "data: [DONE]" in lines
    await inference.client.post("/admin/drain", json={"draining": False})
    assert (await chat(inference.client, adapter.adapter_id, max_tokens=1)).status_code == 200
    assert (await inference.client.get("/readyz")).status_code == 200


async def test_admin_endpoints_are_for_operators_only(evaluator: Any) -> None:
    for path in ("adapters", "cache", "pressure"):
        assert (await evaluator.get(f"/admin/{path}")).status_code == 403
    for path in ("preload", "evict", "drain"):
        assert (await evaluator.post(f"/admin/{path}", json={})).status_code == 403
