"""What a caller of another domain learns of golden data sets and evaluations, and for whom the evaluator asks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fleet_events import v1
from fleet_kit.acting_for import ACT_FOR
from tests.conftest import Mint, RunningService
from tests.integration.evaluator.conftest import Bus, Golden, adapter, eventually, sample
from tests.integration.evaluator.model_server import ModelServer
from tests.integration.strangers import LETTERS, Stranger

pytestmark = pytest.mark.integration


async def judged(bus: Bus, models: ModelServer, golden: Golden, domain: str) -> tuple[v1.Adapter, Any]:
    """A version of the domain and its score."""
    await golden.make(f"{domain}-golden", domain, [sample(1), sample(2)])
    who = adapter(domain)
    models.adapters[who.adapter_id] = who.artifact.blob.sha256
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    [scored] = await eventually(lambda: bus.published(v1.EvaluationScored, adapter_id=who.adapter_id))
    return who, scored


async def test_another_domains_things_read_like_none_at_every_route(
    evaluator: RunningService,
    models: ModelServer,
    golden: Golden,
    bus: Bus,
    domain: str,
    mint: Mint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs, scored = await judged(bus, models, golden, domain)
    mine, _ = await judged(bus, models, golden, f"{domain}z")
    headers = {"Authorization": f"Bearer {mint(['adapters:read', 'adapters:write'], [mine.domain])}"}
    async with httpx.AsyncClient(base_url=evaluator.url, headers=headers, timeout=30) as client:
        stranger = Stranger(client)
        ids = {"dataset_id": f"{domain}-golden", "evaluation_id": scored.evaluation_id}
        await stranger.walk(ids, LETTERS)
        await stranger.walk(ids, LETTERS, params={"version": "1.0.0"})
        path, absent = "/v1/evaluations", f"{domain}y-lora-v1.0.0"
        await stranger.compare("POST", path, theirs.adapter_id, absent, json={"adapter_id": "ID"})
        for reference in ("ID", "ID@1.0.0", "ID@9.9.9"):
            body = {"adapter_id": mine.adapter_id, "golden_dataset_id": reference}
            await stranger.compare("POST", path, f"{domain}-golden", f"{domain}-absent", json=body)
        await stranger.compare("GET", path, theirs.adapter_id, absent, status=200, params={"adapter_id": "ID"})
        await stranger.refused("POST", "/v1/golden", json={"dataset_id": "x", "domain": domain})
        await stranger.refused("GET", "/v1/golden", params={"domain": domain})
        await stranger.refused("GET", "/v1/golden", params={"domain": f"{domain}-nobody"})
        await stranger.sees_nothing_of(f'"{domain}"', "/v1/golden", "/v1/evaluations")
        with capsys.disabled():
            stranger.report("evaluator")


async def test_the_evaluator_asks_with_its_own_credential_for_the_domain_it_judges_and_no_other(
    models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    """Answers of the candidate, embeddings and likelihoods of the judge alike."""
    models.headers.clear()
    await judged(bus, models, golden, domain)
    assert {path for path, _ in models.headers} == {"/v1/chat/completions", "/v1/embeddings", "/v1/completions"}
    assert {headers.get(ACT_FOR) for _, headers in models.headers} == {domain}
