"""Evaluations by event on real NATS, PostgreSQL and S3, with a model server of the test's own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import asyncpg
import pytest

from fleet_events import v1
from fleet_kit import attempts
from tests.conftest import RunningService
from tests.integration.evaluator.conftest import (
    Bus,
    Golden,
    adapter,
    consumed,
    eventually,
    outcome,
    sample,
    teach,
)
from tests.integration.evaluator.model_server import ModelServer

pytestmark = pytest.mark.integration


@pytest.mark.requirement("LA-3.1")
@pytest.mark.requirement("LA-3.2")
@pytest.mark.requirement("LA-3.3")
async def test_a_registered_version_is_judged_and_scored(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str, blobs: Any
) -> None:
    samples = [sample(n) for n in range(10)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples, wrong=2)
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    scored = await outcome(bus, who.adapter_id)

    assert isinstance(scored, v1.EvaluationScored), scored
    assert (scored.samples, scored.passed, scored.pass_rate) == (10, 8, 0.8)
    assert scored.pass_threshold == 70
    assert 80 <= scored.score <= 95
    assert scored.ci_low < scored.score < scored.ci_high
    assert scored.artifact_sha256 == who.artifact.blob.sha256
    assert scored.judge == "reference-judge/4"
    assert set(scored.criteria) == {"accuracy", "relevance", "style", "completeness", "coherence"}
    assert not scored.regression

    shown = (await evaluator.client.get(f"/v1/evaluations/{scored.evaluation_id}")).json()
    assert (shown["state"], shown["done"], shown["total"]) == ("scored", 10, 10)
    weights = {"accuracy": 2.0, "relevance": 1.5, "style": 1.0, "completeness": 1.5, "coherence": 1.0}
    for result in shown["results"]:
        weighted = sum(weights[name] * verdict["score"] for name, verdict in result["verdicts"].items())
        assert result["overall"] == pytest.approx(weighted / 7.0 * 10, abs=0.01)
        assert all(verdict["reason"] for verdict in result["verdicts"].values())
    mean = sum(result["overall"] for result in shown["results"]) / 10
    assert scored.score == pytest.approx(mean)

    report = await blobs.get(scored.report)
    assert hashlib.sha256(report).hexdigest() == scored.report.sha256
    report_json = json.loads(report)
    assert {one["answer"] for one in report_json["samples"]} == {r["answer"] for r in shown["results"]}
    assert report_json["golden"]["sha256"] == scored.golden_sha256
    counts = [body for body in models.bodies if body["model"] == who.adapter_id]
    assert {(body["temperature"], body["max_tokens"]) for body in counts} == {(0.0, 512)}


async def test_the_same_event_three_times_is_one_evaluation(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(4)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id, times=3)
    await outcome(bus, who.adapter_id)
    marker = adapter(f"{domain}z")
    await bus.publish(v1.AdapterRegistered(adapter=marker, revision=1), "registry", marker.adapter_id)
    await outcome(bus, marker.adapter_id)  # one worker: what came before is over
    assert len(await bus.published(v1.EvaluationScored, adapter_id=who.adapter_id)) == 1
    assert all(models.questions[who.adapter_id, one["prompt"]] == 1 for one in samples)


async def test_a_killed_evaluator_goes_on_and_scores_once(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(48)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    models.delay, models.most_at_once = 0.5, 0
    try:
        event_id = await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)

        async def under_way() -> int:
            shown = (await evaluator.client.get(f"/v1/evaluations/{event_id}")).json()
            return int(shown.get("done", 0)) if shown.get("done", 0) >= 8 else 0

        done = await eventually(under_way)
        await evaluator.kill()
        assert done < 40
        await evaluator.wait_ready()
        scored = await outcome(bus, who.adapter_id)
    finally:
        models.delay = 0.0
    assert isinstance(scored, v1.EvaluationScored), scored
    shown = (await evaluator.client.get(f"/v1/evaluations/{event_id}")).json()
    assert len({result["sample_id"] for result in shown["results"]}) == len(shown["results"]) == 48
    # Only what was in flight when it died is asked again: at most 8, and 8 more where a busy machine costs a second take.
    counts = [models.questions[who.adapter_id, one["prompt"]] for one in samples]
    assert min(counts) == 1
    assert 48 <= sum(counts) <= 48 + 16
    assert models.most_at_once == 8
    await consumed(bus, v1.AdapterRegistered)
    assert len(await bus.published(v1.EvaluationScored, adapter_id=who.adapter_id)) == 1
    assert await bus.published(v1.EvaluationFailed, adapter_id=who.adapter_id) == []


async def test_without_a_golden_data_set_the_evaluation_fails_with_the_reason(
    evaluator: RunningService, models: ModelServer, bus: Bus, domain: str
) -> None:
    who = adapter(domain)
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    failed = await outcome(bus, who.adapter_id)
    assert isinstance(failed, v1.EvaluationFailed)
    assert f"domain '{domain}' has no golden data set" in failed.reason


@pytest.mark.parametrize("instead", ["", "other-lora-v9.9.9"])
async def test_an_answer_of_another_model_fails_the_evaluation(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str, instead: str
) -> None:
    samples = [sample(n) for n in range(3)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    models.answers_as[who.adapter_id] = instead
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    failed = await outcome(bus, who.adapter_id)
    assert isinstance(failed, v1.EvaluationFailed)
    assert (instead or "the base model") in failed.reason


async def test_another_artifact_than_the_registered_one_fails_the_evaluation(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(3)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    models.adapters[who.adapter_id] = "e" * 64
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    failed = await outcome(bus, who.adapter_id)
    assert isinstance(failed, v1.EvaluationFailed)
    assert "e" * 64 in failed.reason


async def test_an_adapter_that_inference_learns_of_later_is_waited_for(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(n) for n in range(3)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    models.refuse[who.adapter_id] = 404
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    await eventually(lambda: _questions(models, who.adapter_id))
    models.refuse[who.adapter_id] = 503
    before = _requests(models, who.adapter_id)
    await eventually(lambda: _questions(models, who.adapter_id, more_than=before + 1))
    del models.refuse[who.adapter_id]
    assert isinstance(await outcome(bus, who.adapter_id), v1.EvaluationScored)


def _requests(models: ModelServer, adapter_id: str) -> int:
    return sum(count for (model, _), count in models.questions.items() if model == adapter_id)


async def _questions(models: ModelServer, adapter_id: str, more_than: int = 0) -> bool:
    return _requests(models, adapter_id) > more_than


@pytest.mark.heavy
async def test_an_adapter_that_never_loads_fails_after_a_bounded_time(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    await golden.make(f"{domain}-golden", domain, [sample(1)])
    who = adapter(domain)
    models.refuse[who.adapter_id] = 503
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    failed = await outcome(bus, who.adapter_id)
    assert isinstance(failed, v1.EvaluationFailed)
    assert "could not serve it within 6 s" in failed.reason


async def test_a_request_for_another_domains_adapter_goes_to_the_dead_letters(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [sample(1), sample(2)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    await outcome(bus, who.adapter_id)
    request = v1.EvaluationRequested(evaluation_id=f"{domain}-x", adapter_id=who.adapter_id, domain=f"{domain}other")
    await bus.publish(request, "evaluator", who.adapter_id)

    async def buried() -> bool:
        raw = await bus.jetstream.get_last_msg("LORAFLEET_DLQ", "lorafleet.dlq.evaluator.evaluation_requested.>")
        return f"{domain}other" in (raw.headers or {}).get("Lorafleet-Reason", "")

    async def tried() -> bool:
        try:
            return await buried()
        except Exception as error:
            assert "not found" in str(error).lower() or "no message" in str(error).lower()
            return False

    await eventually(tried)
    assert (await evaluator.client.get(f"/v1/evaluations/{domain}-x")).status_code == 404


async def test_an_evaluation_whose_workers_are_killed_again_and_again_fails_with_that_reason(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    await golden.make(f"{domain}-golden", domain, [sample(1)])
    who = adapter(domain)
    models.refuse[who.adapter_id] = 404
    event_id = await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    await eventually(lambda: _questions(models, who.adapter_id))
    await evaluator.crash()
    connection = await asyncpg.connect(
        evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    try:  # as four killed workers leave it, with a fifth
        changed = await connection.execute(
            "update lease set unanswered = 4, released = false, holder = 'killed', expires_at = now() where name = $1",
            f"evaluation:{event_id}",
        )
        assert changed == "UPDATE 1"
    finally:
        await connection.close()
    await evaluator.start()
    failed = await outcome(bus, who.adapter_id)
    assert isinstance(failed, v1.EvaluationFailed)
    assert failed.reason == attempts.given_up(5)
