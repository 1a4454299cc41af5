"""Version against version: regressions, the active version judged again, and further tries of a family."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from fleet_events import v1
from fleet_kit.blobs import Blobs
from tests.conftest import RunningService
from tests.integration.evaluator.conftest import (
    Bus,
    Golden,
    activated,
    adapter,
    eventually,
    outcome,
    sample,
    teach,
)
from tests.integration.evaluator.model_server import ModelServer

pytestmark = pytest.mark.integration


@pytest.mark.requirement("LA-3.4")
@pytest.mark.requirement("LA-3.5")
async def test_a_worse_version_on_the_same_samples_is_a_regression_and_the_history_shows_both(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(12)]
    await golden.make(f"{domain}-golden", domain, samples)
    old, new = adapter(domain, "1.0.0"), adapter(domain, "1.1.0")
    teach(models, old, samples)
    teach(models, new, samples, wrong=8)
    await bus.publish(v1.AdapterRegistered(adapter=old, revision=1), "registry", old.adapter_id)
    before = await outcome(bus, old.adapter_id)
    await activated(bus, evaluator, old, revision=3)
    await bus.publish(v1.AdapterRegistered(adapter=new, revision=4), "registry", new.adapter_id)
    after = await outcome(bus, new.adapter_id)
    assert isinstance(before, v1.EvaluationScored)
    assert isinstance(after, v1.EvaluationScored)
    assert after.regression
    assert not before.regression
    (regression,) = await bus.published(v1.RegressionDetected, adapter_id=new.adapter_id)
    assert regression.compared_with == old.adapter_id
    assert regression.ci_high < 0
    assert regression.difference == pytest.approx(after.score - before.score)
    assert "accuracy" in regression.criteria

    submitted = await evaluator.client.post("/v1/evaluations", json={"adapter_id": old.adapter_id})
    assert submitted.status_code == 202, submitted.text

    async def twice() -> list[Any]:
        found = (await evaluator.client.get("/v1/evaluations", params={"adapter_id": old.adapter_id})).json()
        return [e for e in found["evaluations"] if e["state"] == "scored"] if len(found["evaluations"]) == 2 else []

    history = await eventually(lambda: _both(twice))
    assert history[0]["evaluation_id"] == submitted.json()["evaluation_id"]
    assert history[0]["score"] == pytest.approx(history[1]["score"])  # the judge is deterministic
    assert history[0]["golden_sha256"] == history[1]["golden_sha256"] == before.golden_sha256


async def active(bus: Bus, evaluator: RunningService, who: v1.Adapter) -> None:
    """The version is judged, then active."""
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    await outcome(bus, who.adapter_id)
    await activated(bus, evaluator, who, revision=3)


@pytest.mark.requirement("LA-3.4")
async def test_the_active_version_is_judged_again_where_the_golden_data_set_changed(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(12)]
    await golden.make(f"{domain}-golden", domain, samples[:8])
    old, new = adapter(domain, "1.0.0"), adapter(domain, "1.1.0")
    teach(models, old, samples)
    teach(models, new, samples, wrong=9)
    await active(bus, evaluator, old)
    assert (await golden.send(f"{domain}-golden", samples)).status_code == 200
    await bus.publish(v1.AdapterRegistered(adapter=new, revision=4), "registry", new.adapter_id)
    scored = await outcome(bus, new.adapter_id)

    assert isinstance(scored, v1.EvaluationScored)
    assert scored.comparison is not None
    assert (scored.comparison.compared_with, scored.comparison.samples) == (old.adapter_id, 12)
    assert scored.regression
    assert "accuracy" in {change.criterion for change in scored.comparison.criteria if change.fell}
    before, again = await bus.published(v1.EvaluationScored, adapter_id=old.adapter_id)
    assert again.evaluation_id == scored.comparison.evaluation_id
    assert again.golden_sha256 == scored.golden_sha256 != before.golden_sha256
    shown = (await evaluator.client.get(f"/v1/evaluations/{again.evaluation_id}")).json()
    assert (shown["compares_for"], shown["done"]) == (scored.evaluation_id, 12)
    assert scored.submission == 1  # what only serves to compare is no try

    submitted = await evaluator.client.post("/v1/evaluations", json={"adapter_id": new.adapter_id})
    second = submitted.json()["evaluation_id"]
    (more,) = await eventually(lambda: bus.published(v1.EvaluationScored, evaluation_id=second))
    assert more.comparison.evaluation_id == again.evaluation_id  # it is not judged a third time
    assert len(await bus.published(v1.EvaluationScored, adapter_id=old.adapter_id)) == 2


@pytest.mark.requirement("LA-3.4")
@pytest.mark.parametrize("changed", ["judge = 'reference-judge/0'", "max_tokens = 17"])
async def test_the_active_version_is_judged_again_where_the_judge_or_the_longest_answer_changed(
    *, evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str, changed: str, blobs: Blobs
) -> None:
    samples = [sample(n) for n in range(4)]
    await golden.make(f"{domain}-golden", domain, samples)
    old, new = adapter(domain, "1.0.0"), adapter(domain, "1.1.0")
    teach(models, old, samples)
    teach(models, new, samples)
    await active(bus, evaluator, old)
    connection = await asyncpg.connect(
        evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    try:
        await connection.execute(f"update evaluation set {changed} where adapter_id = $1", old.adapter_id)
    finally:
        await connection.close()
    await bus.publish(v1.AdapterRegistered(adapter=new, revision=4), "registry", new.adapter_id)
    scored = await outcome(bus, new.adapter_id)
    assert isinstance(scored, v1.EvaluationScored)
    _, again = await bus.published(v1.EvaluationScored, adapter_id=old.adapter_id)
    assert scored.comparison is not None
    assert scored.comparison.evaluation_id == again.evaluation_id
    assert (again.judge, again.max_tokens) == (scored.judge, scored.max_tokens)
    assert scored.not_compared == ""
    assert scored.scores is not None
    by_sample = json.loads(await blobs.get(scored.scores))
    assert set(by_sample) == {one["sample_id"] for one in samples}
    assert set(by_sample["s000"]) == {"overall", "accuracy", "relevance", "style", "completeness", "coherence"}


@pytest.mark.heavy
async def test_an_active_version_that_cannot_be_judged_again_leaves_the_new_one_without_a_comparison(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(6)]
    await golden.make(f"{domain}-golden", domain, samples[:4])
    old, new = adapter(domain, "1.0.0"), adapter(domain, "1.1.0")
    teach(models, old, samples)
    teach(models, new, samples)
    await active(bus, evaluator, old)
    await golden.send(f"{domain}-golden", samples)
    models.refuse[old.adapter_id] = 503
    await bus.publish(v1.AdapterRegistered(adapter=new, revision=4), "registry", new.adapter_id)
    scored = await outcome(bus, new.adapter_id)
    assert isinstance(scored, v1.EvaluationScored)
    assert scored.comparison is None
    (failed,) = await bus.published(v1.EvaluationFailed, adapter_id=old.adapter_id)
    assert "could not serve it within 6 s" in failed.reason
    for told in (f"{old.adapter_id} has no comparable score", "before", "could not serve it within 6 s"):
        assert told in scored.not_compared


async def test_every_further_try_of_a_family_at_a_data_set_has_a_wider_interval_until_one_is_activated(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(5)]
    await golden.make(f"{domain}-golden", domain, samples)
    tries = [adapter(domain, f"1.0.{number}") for number in range(4)]
    found = []
    for number, who in enumerate(tries):
        teach(models, who, samples)
        if number == 2:
            await golden.send(f"{domain}-golden", [sample(9)])  # a new version of the data set is no new start
            models.answers[who.adapter_id, sample(9)["prompt"]] = sample(9)["expected_output"]
        if number == 3:
            models.answers[who.adapter_id, sample(9)["prompt"]] = sample(9)["expected_output"]
            await activated(bus, evaluator, tries[0], revision=9)
        await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
        found.append(await outcome(bus, who.adapter_id))
    assert [one.submission for one in found] == [1, 2, 3, 1]
    assert [one.confidence for one in found] == pytest.approx([0.95, 0.975, 1 - 0.05 / 6, 0.95])
    assert found[1].ci_low < found[0].ci_low


async def _both(check: Any) -> list[Any]:
    found = await check()
    return found if len(found) == 2 else []
