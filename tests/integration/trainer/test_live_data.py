"""Data sets made of what a domain recorded, and a job that trains on them."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_events import v1
from tests.integration.trainer.building import built, card_of
from tests.integration.trainer.conftest import Bench, eventually

pytestmark = pytest.mark.integration


@pytest.mark.requirement("TP-1.1")
async def test_live_ratings_and_preferences_become_pairs_and_rankings(bench: Bench) -> None:
    await bench.record(
        [
            {"domain": bench.domain, "prompt": "Solar roof?", "completion": answer, "rating": rating}
            for answer, rating in (("Needs a permit.", 5), ("Perhaps.", 3), ("Roofs are red.", 1), ("Ask.", 3))
        ]
        + [{"domain": bench.domain, "prompt": "Shed?", "completion": "Free.", "rating": 4}]
    )
    await bench.upstream.publish(
        v1.PreferenceRecorded(domain=bench.domain, prompt="Fence?", chosen="Two metres.", rejected="Yes.")
    )
    _, pairs = await built(bench, {"kind": "live"}, kind="preference")
    assert {one.completions for one in pairs} == {
        ("Two metres.", "Yes."),
        ("Needs a permit.", "Perhaps."),
        ("Needs a permit.", "Ask."),
        ("Needs a permit.", "Roofs are red."),
        ("Perhaps.", "Roofs are red."),
        ("Ask.", "Roofs are red."),
    }
    _, (ranking,) = await built(bench, {"kind": "live"}, kind="ranking")
    assert (ranking.completions[0], ranking.completions[2], len(ranking.completions)) == (
        "Needs a permit.",
        "Roofs are red.",
        3,
    )
    _, high = await built(bench, {"kind": "live", "min_rating": 4}, kind="rated")
    assert {one.completions for one in high} == {("Needs a permit.",), ("Free.",)}


@pytest.mark.requirement("AS-3.1")
async def test_a_preset_prepares_data_for_its_type_of_adapter(bench: Bench) -> None:
    await bench.record(
        [
            {"domain": bench.domain, "prompt": "Open the gate", "completion": '{"steps": ["open"]}', "rating": 5},
            {"domain": bench.domain, "prompt": "Close the gate", "completion": "Sure, closing it.", "rating": 5},
            {"domain": bench.domain, "prompt": "Lock the gate", "completion": '{"steps": ["lock"]}', "rating": 1},
        ]
    )
    body = {"domain": bench.domain, "name": "flows", "adapter_type": "workflow-builder", "validation_part": 0}
    answer = await bench.trainer.client.post("/v1/datasets", json=body)
    assert answer.status_code == 202, answer.text
    at = f"/v1/datasets/builds/{answer.json()['build_id']}"

    async def ended() -> Any:
        found = (await bench.trainer.client.get(at)).json()
        return found if found["state"] in ("succeeded", "failed") else None

    found = await eventually(ended)
    assert found["state"] == "succeeded", found["faults"]
    card = await card_of(bench, found["dataset_id"])
    assert (card["samples"], card["adapter_type"]) == (1, "workflow-builder")
    dropped = (await bench.trainer.client.get(f"/v1/datasets/{found['dataset_id']}/dropped")).json()["filters"]
    assert [one["completion"] for count in dropped.values() for one in count["samples"]] == ["Sure, closing it."]
    answer = await bench.trainer.client.post("/v1/datasets", json={**body, "adapter_type": "poet"})
    assert answer.status_code == 422
    assert "intent-classifier" in answer.text


@pytest.mark.requirement("TP-1.1")
async def test_a_dpo_job_trains_on_the_pairs_that_live_ratings_imply(bench: Bench) -> None:
    await bench.record(
        [
            {"domain": bench.domain, "prompt": f"Gate {n}?", "completion": answer, "rating": rating}
            for n in range(4)
            for answer, rating in (("It opens at dusk.", 5), ("No idea.", 1))
        ]
    )
    job_id = await bench.submit(objective="dpo", hyperparameters={"rank": 2, "maxSteps": 1, "batchSize": 4})
    await bench.until(job_id, "succeeded")
    event = await bench.completed(job_id)
    assert (event.dataset.kind, event.dataset.samples) == ("preference", 4)
    assert {one.completions for one in await bench.records(event.dataset)} == {("It opens at dusk.", "No idea.")}
