"""Golden data sets over HTTP: versions, immutability, domains, JSONL there and back."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from fleet_events import v1
from tests.conftest import Mint, RunningService
from tests.integration.evaluator.conftest import Bus, Golden, adapter, eventually, sample
from tests.integration.evaluator.model_server import ModelServer

pytestmark = pytest.mark.integration


@pytest.mark.requirement("LA-2.1")
async def test_data_sets_are_created_listed_by_domain_and_shown(
    evaluator: RunningService, golden: Golden, domain: str
) -> None:
    body = {"dataset_id": f"{domain}-g", "domain": domain, "version": "1.0.0", "description": "Stores of Velmar"}
    created = await evaluator.client.post("/v1/golden", json=body)
    assert created.status_code == 201, created.text
    assert (await evaluator.client.post("/v1/golden", json=body)).status_code == 200
    await golden.send(f"{domain}-g", [sample(n) for n in range(4)])
    await golden.make(f"{domain}-other", f"{domain}2", [sample(1)])
    listed = (await evaluator.client.get("/v1/golden", params={"domain": domain})).json()["datasets"]
    assert [(d["dataset_id"], d["total_samples"], d["frozen"]) for d in listed] == [(f"{domain}-g", 4, False)]
    shown = (await evaluator.client.get(f"/v1/golden/{domain}-g")).json()
    assert shown["description"] == "Stores of Velmar"
    assert shown["by_difficulty"] == {"easy": 2, "medium": 1, "hard": 1}
    assert shown["versions"] == ["1.0.0"]

    second = await evaluator.client.post("/v1/golden", json={**body, "version": "2.0.0"})
    assert second.status_code == 201
    assert second.json()["total_samples"] == 0
    lower = await evaluator.client.post("/v1/golden", json={**body, "version": "1.5.0"})
    assert lower.status_code == 409
    assert "below the newest, 2.0.0" in lower.json()["detail"]
    stolen = await evaluator.client.post("/v1/golden", json={**body, "domain": f"{domain}2"})
    assert stolen.status_code == 409
    odd = await evaluator.client.post("/v1/golden", json={**body, "version": "two"})
    assert (odd.status_code, odd.json()["field"]) == (422, "version")


@pytest.mark.requirement("LA-2.2")
@pytest.mark.requirement("LA-2.3")
async def test_an_export_imports_again_as_the_same_content(
    evaluator: RunningService, golden: Golden, domain: str
) -> None:
    samples = [sample(n, context=f"Handbook, page {n}", expected_score=0.9) for n in range(4)]
    turns = [{"role": "user", "content": "Good day"}, {"role": "assistant", "content": "How can I help?"}]
    samples.append(sample(4, system="Be brief.", history=turns))
    await golden.make(f"{domain}-a", domain, samples)
    export = await evaluator.client.get(f"/v1/golden/{domain}-a/export")
    assert export.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in export.text.splitlines()] == samples_with_defaults(samples)
    await evaluator.client.post("/v1/golden", json={"dataset_id": f"{domain}-b", "domain": domain})
    again = await evaluator.client.post(f"/v1/golden/{domain}-b/samples", content=export.content)
    assert again.json()["read"] == 5
    copy = await evaluator.client.get(f"/v1/golden/{domain}-b/export")
    assert copy.content == export.content
    assert copy.headers["x-golden-sha256"] == export.headers["x-golden-sha256"]


def samples_with_defaults(samples: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{"context": "", "expected_score": 1.0, **one} for one in samples]


@pytest.mark.requirement("LA-2.3")
async def test_a_bad_import_names_every_line_and_stores_nothing(
    evaluator: RunningService, golden: Golden, domain: str
) -> None:
    await golden.make(f"{domain}-g", domain, [sample(1)])
    refused = await golden.send(
        f"{domain}-g", [sample(2), sample(3, difficulty="extreme"), sample(4, criteria={"accuracy": "be nice"})]
    )
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert [(e["line"], e["field"]) for e in refused.json()["errors"]] == [(2, "difficulty"), (3, "criteria.accuracy")]
    assert (await evaluator.client.get(f"/v1/golden/{domain}-g")).json()["total_samples"] == 1
    binary = await evaluator.client.post(f"/v1/golden/{domain}-g/samples", content=b"{}\n\xff\xfe")
    assert binary.status_code == 422
    assert "line 2 is not UTF-8" in binary.json()["detail"]


@pytest.mark.requirement("LA-2.1")
async def test_a_data_set_that_judged_is_never_changed_but_versioned(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    name, samples = f"{domain}-g", [sample(n) for n in range(3)]
    await golden.make(name, domain, samples)
    who = adapter(domain)
    models.adapters[who.adapter_id] = who.artifact.blob.sha256
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    (scored,) = await eventually(lambda: bus.published(v1.EvaluationScored, adapter_id=who.adapter_id))
    frozen = (await evaluator.client.get(f"/v1/golden/{name}")).json()
    assert frozen["frozen"]
    assert frozen["sha256"] == scored.golden_sha256
    assert frozen["sha256"] == (await evaluator.client.get(f"/v1/golden/{name}/export")).headers["x-golden-sha256"]

    same = (await golden.send(name, samples)).json()
    assert (same["changed"], same["opened"], same["version"]) == (False, None, "1.0.0")
    more = (await golden.send(name, [sample(7)])).json()
    assert (more["changed"], more["opened"], more["version"], more["total_samples"]) == (True, "1.1.0", "1.1.0", 4)
    fewer = (await golden.send(name, [sample(7)], replace=True)).json()
    assert (fewer["version"], fewer["total_samples"]) == ("1.1.0", 1)
    old = (await evaluator.client.get(f"/v1/golden/{name}", params={"version": "1.0.0"})).json()
    assert (old["total_samples"], old["sha256"]) == (3, frozen["sha256"])


async def test_a_token_sees_and_changes_its_own_domains_only(
    evaluator: RunningService, golden: Golden, domain: str, mint: Mint
) -> None:
    await golden.make(f"{domain}-g", domain, [sample(1)])
    headers = {"Authorization": f"Bearer {mint(['adapters:read', 'adapters:write'], [f'{domain}z'])}"}
    async with httpx.AsyncClient(base_url=evaluator.url, headers=headers) as stranger:
        assert (await stranger.get("/v1/golden")).json()["datasets"] == []
        assert (await stranger.get("/v1/golden", params={"domain": domain})).status_code == 403
        assert (await stranger.get(f"/v1/golden/{domain}-g")).status_code == 404
        assert (await stranger.get(f"/v1/golden/{domain}-g/export")).status_code == 404
        assert (await stranger.post(f"/v1/golden/{domain}-g/samples", content="{}")).status_code == 404
        body = {"dataset_id": "x", "domain": domain}
        assert (await stranger.post("/v1/golden", json=body)).status_code == 403
    reader = {"Authorization": f"Bearer {mint(['adapters:read'])}"}
    body = {"dataset_id": f"{domain}-r", "domain": domain}
    assert (await evaluator.client.post("/v1/golden", json=body, headers=reader)).status_code == 403
    async with httpx.AsyncClient(base_url=evaluator.url) as nobody:
        assert (await nobody.get("/v1/golden")).status_code == 401


async def test_slow_patterns_of_one_caller_delay_no_other(
    evaluator: RunningService, golden: Golden, domain: str
) -> None:
    """Expressions that `re` searches with for ever, on texts made for them; health is asked all the while."""
    await golden.make(f"{domain}-g", domain, [sample(1)])
    hostile = [
        "regex: (a?){25}a{25}",
        "regex: (a|aa)+",
        "regex: (?:a{1,3}){1,40}",
        "not regex: (.*a){20}x",
        "not regex: (x+x+)+y",
    ]
    samples = [sample(n, expected_output="a" * 7_000, criteria={"accuracy": "; ".join(hostile)}) for n in range(2, 102)]
    sending = asyncio.create_task(golden.send(f"{domain}-g", samples))
    slowest = 0.0
    while not sending.done():
        begun = time.monotonic()
        assert (await evaluator.client.get("/healthz")).status_code == 200
        slowest = max(slowest, time.monotonic() - begun)
        await asyncio.sleep(0.02)
    answer = await sending
    assert answer.status_code == 200, answer.text
    assert slowest < 2.0, slowest


async def test_an_import_whose_rules_take_too_long_is_refused_with_its_line(
    evaluator: RunningService, golden: Golden, domain: str
) -> None:
    await golden.make(f"{domain}-g", domain, [sample(1)])
    rules = "; ".join(["regex: a(?:b?c?){40}"] * 30)
    samples = [sample(n, expected_output="a" * 8_000, criteria={"accuracy": rules}) for n in range(2, 60)]
    answer = await golden.send(f"{domain}-g", samples)
    assert answer.status_code == 422, answer.text
    assert "take too long; send the lines in parts" in answer.json()["detail"]
