"""Which series /metrics has: requests fill them, and add none."""

import json
from typing import Any

import httpx
import pytest

from tests.conftest import RunningService, RunService
from tests.integration.inference.conftest import TOKENS, answered, chat

pytestmark = pytest.mark.integration

LABELS = {
    "state": {
        "running",
        "waiting",
        "known",
        "fetching",
        "cached",
        "loading",
        "loaded",
        "yielding",
        "draining",
        "unloading",
        "failed",
    },
    "found": {"slot", "disk", "store", "failed"},
    "status": {"completed", "failed", "expired", "cancelled"},
    "outcome": {
        "completed",
        "failed",
        "interrupted",
        "hit",
        "miss",
        "answered",
        "unreachable",
        "refused",
        "disconnected",
    },
    "reason": {
        *("evicted", "evicted by hand", "gave way", "memory pressure", "deactivated", "replaced", "rejected"),
        *("holder", "placed", "overloaded", "draining"),
    },
    "kind": {"prompt", "completion"},
    "answered_by": {"", "base", "adapter", "mix"},
    "adapter_id": {""},
    "limit": {"time", "memory", "text"},
    "step": {"start", "step", "engine"},
    "base_model": {"tiny", "second"},
}
OPEN_OF_THE_LIBRARY = {"le"}


async def _series(service: RunningService) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Names and labels of inference's own series."""
    from prometheus_client.parser import text_string_to_metric_families

    text = (await service.client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name.startswith("lorafleet_inference")
    }


async def _answers(client: httpx.AsyncClient, families: list[str], odd: str) -> None:
    """Requests of every kind, with names of their own wherever a request may bring one."""
    for model in ("tiny", *families, f"{families[0]}:0.5+{families[1]}:0.5"):
        workflow = {"workflow": f"w-{odd}", f"key-{odd}": odd}
        assert (await chat(client, model, user=f"user-{odd}", metadata=workflow)).status_code == 200
    for path, body in (
        ("/v1/chat/completions", {"model": f"model-{odd}", "messages": [{"role": "user", "content": odd}]}),
        ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": f"role-{odd}", "content": odd}]}),
        ("/v1/chat/completions", {"model": "tiny", f"field-{odd}": odd}),
        ("/v1/completions", {"model": f"tiny@{odd}", "prompt": odd}),
        ("/v1/completions", {"model": families[0], "prompt": odd, "max_tokens": 2, "stream": True}),
        ("/v1/embeddings", {"model": f"{families[0]}:0.{odd}", "input": odd}),
        ("/v1/feedback", {"generation_id": f"chatcmpl-{odd}", "rating": 5}),
        (f"/v1/{odd}", {}),
    ):
        await client.post(path, json=body, headers={"X-Lorafleet-Forwarded": odd})
    await client.post("/admin/preload", json={"workflow": f"w-{odd}"})


async def _families(registry: Any, make_adapter: Any, domain: str, client: httpx.AsyncClient) -> list[str]:
    families = []
    for seed in (91, 92):
        adapter = await registry.describe(make_adapter(seed=seed), f"{domain}{seed}")
        await registry.activate(adapter)
        await answered(client, adapter.family)
        families.append(adapter.family)
    return families


async def test_no_request_adds_a_series_and_none_names_an_adapter(
    inference: RunningService, registry: Any, make_adapter: Any, domain: str
) -> None:
    families = await _families(registry, make_adapter, domain, inference.client)
    await _answers(inference.client, families, "first")
    before = await _series(inference)
    for odd in range(5):
        await _answers(inference.client, families, f"odd{odd}")
    assert await _series(inference) - before == set()
    for name, labels in before:
        for label, value in labels:
            if label not in OPEN_OF_THE_LIBRARY:
                assert value in LABELS[label], (name, label, value)
    assert domain not in (await inference.client.get("/metrics")).text
    counted = {dict(labels)["answered_by"] for name, labels in before if name == "lorafleet_inference_tokens_total"}
    assert counted == {"base", "adapter", "mix"}


async def test_equal_beginnings_of_prompts_are_counted_for_one_adapter_and_shown_by_readyz(
    inference: RunningService, registry: Any, make_adapter: Any, domain: str
) -> None:
    families = await _families(registry, make_adapter, domain, inference.client)

    async def found(family: str) -> tuple[int, float]:
        """Prompt tokens of a request that were there already; and the share of all so far."""
        before = _hits((await inference.client.get("/metrics")).text)
        body = {"model": family, "prompt": list(range(2, 92)), "max_tokens": 1}
        assert (await inference.client.post("/v1/completions", json=body)).status_code == 200
        shown = (await inference.client.get("/readyz")).json()["detail"]["prefix_cache"]["tiny"]
        assert shown["bytes"] > 0
        return int(_hits((await inference.client.get("/metrics")).text) - before), shown["hit_rate"]

    assert (await found(families[0]))[0] == 0
    assert (await found(families[1]))[0] == 0, "another domain computes its own"
    hits, share = await found(families[0])
    assert hits == 64
    assert 0 < share < 1


def _hits(text: str) -> float:
    (line,) = [
        one
        for one in text.splitlines()
        if one.startswith('lorafleet_inference_prefix_tokens_total{base_model="tiny",outcome="hit"}')
    ]
    return float(line.rpartition(" ")[2])


async def test_adapter_ids_are_there_where_the_setting_wants_them(
    run_service: RunService, settings_of_inference: dict[str, str], registry: Any, make_adapter: Any, domain: str
) -> None:
    changes = {"LORAFLEET_METRICS_ADAPTER_IDS": "true", "LORAFLEET_FURTHER_BASE_MODELS": json.dumps({})}
    async with run_service("inference", **settings_of_inference | changes) as service:
        adapter = await registry.describe(make_adapter(seed=91), domain)
        await registry.activate(adapter)
        await answered(service.client, adapter.family)
        text = (await service.client.get("/metrics")).text
    labels = f'adapter_id="{adapter.adapter_id}",answered_by="adapter",kind="completion"'
    assert f"lorafleet_inference_tokens_total{{{labels}}} {TOKENS}.0" in text


async def test_what_an_answer_waits_for_is_measured_in_seconds(inference: Any) -> None:
    """Time to the first token, between tokens, and for a row, as objectives for serving are written in them."""

    async def counted() -> dict[str, float]:
        found = await _counts(inference)
        return {name: found.get(name, 0.0) for name in ("first_token", "token_gap", "queue")}

    before = await counted()
    assert (await chat(inference.client, "tiny", max_tokens=5, ignore_eos=True)).status_code == 200
    after = await counted()
    assert {name: after[name] - before[name] for name in after} == {"first_token": 1, "token_gap": 4, "queue": 1}
    text = (await inference.client.get("/metrics")).text
    assert 'lorafleet_inference_rows{base_model="tiny",state="running"} 0.0' in text
    assert 'lorafleet_inference_rows_limit{base_model="tiny"}' in text
    assert 'lorafleet_inference_prefix_bytes{base_model="tiny"}' in text


async def _counts(service: RunningService) -> dict[str, float]:
    """How often each of inference's durations was measured, of all base models."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    for family in text_string_to_metric_families((await service.client.get("/metrics")).text):
        for sample in family.samples:
            if family.name.startswith("lorafleet_inference") and sample.name.endswith("_seconds_count"):
                name = sample.name.removeprefix("lorafleet_inference_").removesuffix("_seconds_count")
                found[name] = found.get(name, 0.0) + sample.value
    return found
