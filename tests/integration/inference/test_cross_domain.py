"""Two domains on one inference: neither learns of the other's adapters, by itself or through a service that acts for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_events import v1
from fleet_kit.acting_for import ACT_FOR
from tests.conftest import Mint, RunningService, RunService
from tests.integration.inference.conftest import QUESTION, TOKENS, answered, chat, eventually, text_of
from tests.integration.strangers import Stranger

pytestmark = pytest.mark.integration


def client_of(url: str, token: str, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}", **headers}, timeout=60)


@pytest.fixture
async def beta(registry: Any, make_adapter: Any, domain: str, inference: RunningService) -> v1.Adapter:
    """An adapter that answers for domain beta."""
    adapter = await registry.describe(make_adapter(seed=1), domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    found: v1.Adapter = adapter
    return found


async def test_another_domains_adapter_reads_like_none_at_every_route(
    inference: RunningService, beta: v1.Adapter, domain: str, mint: Mint, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await answered(inference.client, beta.adapter_id)
    asked = {"model": beta.adapter_id, "input": QUESTION, "max_output_tokens": TOKENS}
    stored = (await inference.client.post("/v1/responses", json=asked)).json()["id"]
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": asked}
    form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", json.dumps(line))}}
    file = (await inference.client.post("/v1/files", **form)).json()["id"]
    request = {"input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h"}
    batch = (await inference.client.post("/v1/batches", json=request)).json()["id"]
    async with client_of(
        inference.url, mint(["generate", "feedback", "admin", "candidates"], [f"{domain}z"])
    ) as client:
        stranger = Stranger(client)
        for name in (beta.adapter_id, beta.family):
            await stranger.walk({"name": name}, {"response_id": stored, "file_id": file, "batch_id": batch})
        for own in ({"response_id": stored}, {"file_id": file}, {"batch_id": batch}):
            others = {"name": beta.adapter_id, "response_id": stored, "file_id": file, "batch_id": batch}
            await stranger.walk(own, {name: value for name, value in others.items() if name not in own})
        named = {"input_file_id": "ID", "endpoint": "/v1/responses", "completion_window": "24h"}
        await stranger.compare("POST", "/v1/batches", file, "file-0", status=400, json=named)
        continued = {"model": "tiny", "input": QUESTION, "previous_response_id": "ID"}
        await stranger.compare("POST", "/v1/responses", stored, stored[:-8] + "AAAAAAAA", status=400, json=continued)
        absent = f"{domain}y-lora"
        for model in ("ID", "ID-v1.0.0", "ID@1.0.0", "ID@9.9.9", "ID:0.5", "tiny+ID", "ID+ID-v1.0.0"):
            fields = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
            for path, body in (
                ("/v1/chat/completions", {"model": model, **fields}),
                ("/v1/chat/completions", {"model": model, "stream": True, **fields}),
                ("/v1/chat/completions", {"model": model, "fallback": "tiny", **fields}),
                ("/v1/responses", {"model": model, "input": QUESTION, "max_output_tokens": TOKENS}),
                ("/v1/completions", {"model": model, "prompt": QUESTION, "max_tokens": 1}),
                ("/v1/completions", {"model": model, "prompt": "a b", "max_tokens": 0, "echo": True, "logprobs": 1}),
                ("/v1/embeddings", {"model": model, "input": "a"}),
            ):
                # a base model in a set is refused before any adapter of the set is looked up
                status = 400 if model.startswith("tiny+") else 404
                await stranger.compare("POST", path, beta.family, absent, status=status, json=body)
        for path in ("/admin/preload", "/admin/evict"):
            for model in ("ID", "ID-v1.0.0"):
                await stranger.compare("POST", path, beta.family, absent, json={"models": [model]})
        rating = {"generation_id": "ID", "rating": 1}
        await stranger.compare("POST", "/v1/feedback", answer["id"], answer["id"][:-8] + "AAAAAAAA", json=rating)
        await stranger.sees_nothing_of(domain + "-", "/v1/models", "/admin/adapters")
        await stranger.sees_nothing_of(file, "/v1/files")
        await stranger.sees_nothing_of(batch, "/v1/batches")
        for path in ("/admin/cache", "/admin/pressure", "/admin/replicas", "/admin/info"):
            await stranger.refused("GET", path)
        for path, body in (("/admin/drain", {}), ("/admin/preload", {"workflow": "any"})):
            await stranger.refused("POST", path, json=body)
        with capsys.disabled():
            stranger.report("inference")


async def test_the_administrator_of_a_domain_lists_preloads_and_evicts_its_own_adapters_alone(
    inference: RunningService, beta: v1.Adapter, registry: Any, make_adapter: Any, domain: str, mint: Mint
) -> None:
    mine = await registry.describe(make_adapter(seed=2), f"{domain}z")
    await registry.activate(mine)
    await answered(inference.client, mine.adapter_id)
    await answered(inference.client, beta.adapter_id)
    async with client_of(inference.url, mint(["admin"], [mine.domain])) as client:
        assert set((await client.get("/admin/adapters")).json()["adapters"]) == {mine.adapter_id}
        assert (await client.post("/admin/evict", json={})).json()["evicted"] == [mine.adapter_id]
        found = (await inference.client.get("/admin/adapters")).json()["adapters"]
        assert found[beta.adapter_id]["state"] == "loaded"
        brought = await client.post("/admin/preload", json={"models": [mine.family]})
        assert (brought.status_code, brought.json()["preloading"]) == (202, [mine.adapter_id])

    async def states() -> Any:
        found = (await inference.client.get("/admin/adapters")).json()["adapters"]
        return found if found[mine.adapter_id]["state"] == "loaded" else None

    assert await eventually(states)  # for it an idle adapter of another domain may leave, as for any request


async def test_a_token_of_every_domain_that_acts_for_one_reaches_that_one_alone(
    inference: RunningService, beta: v1.Adapter, domain: str, mint: Mint
) -> None:
    for reached, status in ((domain, 200), (f"a,{domain}", 200), ("*", 200), ("a", 404), ("-", 404), ("d*", 400)):
        async with client_of(inference.url, mint(["generate"]), **{ACT_FOR: reached}) as client:
            assert (await chat(client, beta.adapter_id, max_tokens=1)).status_code == status, reached
    async with client_of(inference.url, mint(["generate"], ["a"]), **{ACT_FOR: f"{domain},*"}) as client:
        assert (await chat(client, beta.adapter_id, max_tokens=1)).status_code == 404


@pytest.fixture
async def trainer(
    run_service: RunService, inference: RunningService, tiny_model: Path, tmp_path: Path, token_of: Any
) -> AsyncIterator[RunningService]:
    """A trainer as the stack sets it up: its generators ask this inference with its own token, of every domain."""
    (tmp_path / "token").write_text(token_of("trainer"))
    named = {"url": f"{inference.url}/v1", "model": "tiny", "token_file": str(tmp_path / "token")}
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_BASE_MODEL_NAME="tiny",
        LORAFLEET_CACHE_DIR=str(tmp_path / "trainer"),
        LORAFLEET_GENERATION_ENDPOINTS=json.dumps({"inference": named}),
        LORAFLEET_LEASE_SECONDS="2",
    ) as running:
        yield running


def recipe(domain: str, model: str) -> dict[str, Any]:
    """What alpha would build of another model's answers to its own prompts."""
    answers = {
        "kind": "back_generation",
        "name": "answers",
        "makes": "completion",
        "instruction": "{prompt}",
        "max_tokens": 64,
        "model": model,
    }
    return {
        "domain": domain,
        "name": "theirs",
        "sources": [{"kind": "live"}],
        "generators": {"generators": [answers]},
        "filters": {"exact_duplicates": None},
    }


async def ended(client: httpx.AsyncClient, build_id: str) -> dict[str, Any]:
    async def end() -> Any:
        found = (await client.get(f"/v1/datasets/builds/{build_id}")).json()
        return found if found["state"] in ("failed", "succeeded") else None

    return dict(await eventually(end, seconds=90))


async def test_a_build_of_alpha_that_names_betas_adapter_is_refused_and_betas_answers_appear_nowhere(
    trainer: RunningService, inference: RunningService, beta: v1.Adapter, registry: Any, domain: str, mint: Mint
) -> None:
    alpha = f"{domain}a"
    async with (
        client_of(trainer.url, mint(["train"], [alpha])) as of_alpha,
        client_of(trainer.url, mint(["train"], [alpha, domain])) as of_both,
    ):
        sample = {"domain": alpha, "prompt": QUESTION, "completion": "It turns at noon."}
        assert (await of_alpha.post("/v1/samples", content=json.dumps(sample))).status_code == 201
        secret = text_of(await answered(inference.client, beta.adapter_id, max_tokens=64))
        faults = []
        for model in (beta.adapter_id, f"{beta.family}@1.0.0", "no-such-model"):
            queued = await of_alpha.post("/v1/datasets", json=recipe(alpha, model))
            assert queued.status_code == 202, queued.text
            build = await ended(of_alpha, queued.json()["build_id"])
            assert (build["state"], build["dataset_id"]) == ("failed", None), model
            assert secret[:40] not in json.dumps(build)
            faults.append(
                build["faults"][0]["value"].replace(repr(model), "MODEL").replace(repr(beta.adapter_id), "MODEL")
            )
        # Beta's adapter reads like a model that does not exist.
        assert len({fault.replace("'" + beta.family + "'", "MODEL") for fault in faults}) == 1, faults
        assert "404" in faults[0]
        assert [one for one in await registry.published(v1.GenerationCompleted) if one.caller == "trainer"] == []

        # Killed with the build in the queue and started again: it has the rights that its caller had.
        queued = await of_alpha.post("/v1/datasets", json=recipe(alpha, beta.adapter_id))
        await trainer.crash()
        await trainer.start()
        assert (await ended(of_alpha, queued.json()["build_id"]))["state"] == "failed"

        # Who reaches both domains may; so the refusals above were of the domain.
        queued = await of_both.post("/v1/datasets", json=recipe(alpha, beta.adapter_id))
        build = await ended(of_both, queued.json()["build_id"])
        assert build["state"] == "succeeded" or "no records" in json.dumps(build["faults"]), build
    completed = [one for one in await registry.published(v1.GenerationCompleted) if one.caller == "trainer"]
    assert [one.adapter_id for one in completed] == [beta.adapter_id]


async def test_auto_asks_the_router_for_the_callers_domains(
    run_service: RunService,
    settings_of_inference: dict[str, str],
    registry: Any,
    make_adapter: Any,
    domain: str,
    mint: Mint,
    tmp_path: Path,
) -> None:
    made = make_adapter(seed=3)
    adapter = await registry.describe(made, domain, example_prompts=(QUESTION,), description="questions on tides")
    changes = {**settings_of_inference, "LORAFLEET_CACHE_DIR": str(tmp_path), "LORAFLEET_REPLICA": "auto"}
    async with (
        run_service("router") as router,
        run_service("inference", **changes, LORAFLEET_ROUTER_URL=router.url) as inference,
        client_of(inference.url, mint(["generate"], [domain])) as insider,
        client_of(inference.url, mint(["generate"], [f"{domain}z"])) as outsider,
        client_of(inference.url, mint(["generate"]), **{ACT_FOR: f"{domain}z"}) as acting,
    ):
        await registry.activate(adapter)

        async def routed() -> Any:
            return (await answered(insider, "auto", max_tokens=1))["lorafleet"]["routed"]["matched"]

        await eventually(routed)
        for client in (outsider, acting):
            answer = await answered(client, "auto", max_tokens=1)
            assert answer["lorafleet"]["adapter_id"] is None
            assert domain + "-" not in json.dumps(answer)
