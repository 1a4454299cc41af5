"""Retraining rules on real servers: what they react to, the job that they request, and a kill in the middle of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_events import v1
from tests.conftest import RunningService, RunService
from tests.integration.trainer.answering import opinion, publish_as, recorded
from tests.integration.trainer.conftest import Bench, eventually, pairs
from tests.integration.trainer.retraining import BAKING, QUICK, Domain, harbour, rated, run_pretended, waits_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    async with run_pretended(run_service, tiny_model, tmp_path_factory.mktemp("retraining")) as running:
        yield running


@pytest.fixture
def domain(bench: Bench, tiny_model: Path) -> Domain:
    """A domain of this test's own."""
    return Domain(bench, tiny_model)


@pytest.mark.requirement("LA-4.3")
async def test_enough_new_good_samples_request_one_job_and_only_newer_ones_the_next(domain: Domain) -> None:
    bench = domain.bench
    await domain.set(new_samples={"at_least": 12})
    await bench.record(pairs(domain.name, 12))
    (first,) = await domain.fired()
    assert (first["triggers"], first["active_adapter"]) == (["new_samples"], "")
    job = await bench.until(first["job_id"], "failed")
    assert (job["reason"], job["triggers"], job["continued_from"]) == (first["reason"], ["new_samples"], None)
    assert job["priority"] == 0

    adapter_id = await domain.activate()
    await bench.record(rated(domain.name, 11, 5.0))
    await bench.record(rated(domain.name, 20, 1.0, "bad"))  # not to be learned
    await bench.record(rated(domain.name, 1, 5.0, "last"))
    second, _ = await domain.fired(2)
    assert second["active_adapter"] == adapter_id
    assert "12 usable samples are new" in second["reason"]
    job = await bench.until(second["job_id"], "failed")
    assert job["continued_from"] == adapter_id
    (requested,) = await bench.upstream.published(v1.TrainingRequested, second["job_id"])
    assert (requested.reason, requested.requested_by) == (second["reason"], "admin")
    assert (requested.triggers, requested.min_rating) == ((v1.RetrainingTrigger.NEW_SAMPLES,), 4)


async def test_new_preferences_count_for_rules_that_train_on_preferences(domain: Domain) -> None:
    await domain.set(new_samples={"at_least": 2}, training={"objective": "dpo", "hyperparameters": QUICK})
    await domain.bench.record(rated(domain.name, 8, 5.0))
    for number in range(2):
        preference = v1.PreferenceRecorded(
            domain=domain.name, prompt=f"Gate {number}?", chosen="It is.", rejected="No."
        )
        await domain.bench.upstream.publish(preference)
    (fired,) = await domain.fired()
    assert "2 usable samples are new" in fired["reason"]


async def test_prompts_with_different_ratings_count_for_rules_that_train_on_rankings(domain: Domain) -> None:
    await domain.set(new_samples={"at_least": 3}, training={"objective": "ranking", "hyperparameters": QUICK})
    await domain.bench.record(rated(domain.name, 8, 5.0))
    worse = [{**one, "completion": "No idea.", "rating": 1} for one in rated(domain.name, 3, 1.0)]
    await domain.bench.record(worse)
    (fired,) = await domain.fired()
    assert "3 usable samples are new" in fired["reason"]


async def test_fallen_ratings_of_the_active_version_wait_for_new_data_and_then_fire(domain: Domain) -> None:
    bench = domain.bench
    adapter_id = await domain.activate()
    await domain.set(rating_trend={"expected": 4.5, "fall": 1.5})
    for number in range(40):
        feedback = v1.FeedbackRecorded(
            generation_id=f"{domain.name}-{number}", adapter_id=adapter_id, domain=domain.name, rating=1 + number % 2
        )
        await bench.upstream.publish(feedback)
    held = await domain.held("no_new_data")
    assert held["trigger"] == "rating_trend"
    assert (await domain.listed())["firings"] == []
    await bench.record(rated(domain.name, 1, 5.0))
    (fired,) = await domain.fired()
    assert fired["triggers"] == ["rating_trend"]
    metrics = (await bench.trainer.client.get("/metrics")).text
    assert 'lorafleet_retraining_fired_total{trigger="rating_trend"} 1.0' in metrics
    assert 'lorafleet_retraining_suppressed_total{why="no_new_data"}' in metrics


async def test_prompts_of_another_topic_are_drift_and_those_of_the_same_topic_are_none(
    domain: Domain, embedding_model: Path, tmp_path: Path
) -> None:
    bench = domain.bench
    routing, alike = await harbour(bench, embedding_model, tmp_path)
    adapter_id = await domain.activate(routing=routing)
    await domain.set(drift={"between_false_alarms": 100})
    await bench.record([_sample(domain.name, prompt) for prompt in alike])

    async def measured() -> bool:
        async with domain.database() as connection:
            found = await connection.fetchval("select count(*) from prompt_distances where adapter_id = $1", adapter_id)
        return int(found) == len(alike)

    await eventually(measured, 90)
    assert await domain.listed() == {"firings": [], "suppressed": []}
    await bench.record([_sample(domain.name, prompt) for prompt in BAKING])
    (fired,) = await domain.fired()
    assert fired["triggers"] == ["drift"]


async def test_recorded_answers_without_feedback_are_drift_too_each_conversation_once(
    domain: Domain, embedding_model: Path, tmp_path: Path
) -> None:
    bench = domain.bench
    routing, _ = await harbour(bench, embedding_model, tmp_path)
    adapter_id = await domain.activate(routing=routing)
    await domain.set(drift={"between_false_alarms": 100})
    for number, prompt in enumerate(BAKING):
        asked = (v1.Turn(role="user", content=prompt),)
        for turn in "ab":  # two answers to one question are one observation
            await publish_as(bench, recorded(bench, f"{number}{turn}", "With care.", messages=asked))
    held = await domain.held("no_new_data")  # found by the answers alone; there is nothing to learn from yet
    assert held["trigger"] == "drift"
    await publish_as(bench, opinion(bench, "0a", rating=5))
    (fired,) = await domain.fired()
    assert fired["triggers"] == ["drift"]
    async with domain.database() as connection:
        counts = await connection.fetchrow(
            "select (select count(*) from answer_distances where adapter_id = $1) as answers,"
            " (select count(*) from prompt_distances where adapter_id = $1) as samples",
            adapter_id,
        )
    assert dict(counts or {}) == {"answers": len(BAKING), "samples": 0}, "a sample counts as the answer it was made of"


async def test_tokens_that_a_days_jobs_have_trained_on_hold_the_next_one_back_and_those_of_a_step_are_planned_with(
    domain: Domain,
) -> None:
    bench = domain.bench
    budget = {"jobs_a_day": 50, "tokens_a_day": 5_000}
    await domain.set(new_samples={"at_least": 8}, budget=budget)
    await bench.record(pairs(domain.name, 8))
    (first,) = await domain.fired()
    assert first["planned_tokens"] == 2 * 4 * 512, "two steps of four rows of the longest length"
    await bench.until(first["job_id"], "failed")
    async with domain.database() as connection:
        await connection.execute(
            "insert into steps (job_id, step, epoch, loss, learning_rate, gradient_norm, tokens, seconds)"
            " select $1, step, 1, 1, 1, 1, 1000, 1 from generate_series(1, 2) step",
            first["job_id"],
        )
    await bench.record(rated(domain.name, 8, 5.0))
    second, counted = await domain.fired(2)
    assert (second["planned_tokens"], counted["tokens"]) == (2_000, 2_000)
    async with domain.database() as connection:
        await connection.execute(
            "insert into steps (job_id, step, epoch, loss, learning_rate, gradient_norm, tokens, seconds)"
            " values ($1, 1, 1, 1, 1, 1, 1001, 1)",
            (await bench.until(second["job_id"], "failed"))["job_id"],
        )
    await bench.record(rated(domain.name, 8, 5.0, "pier"))
    held = await domain.held("token_budget")
    assert held["detail"] == "3001 tokens within 24 hours and 2002 more, 5000 are allowed (tokens_a_day)"
    metrics = (await bench.trainer.client.get("/metrics")).text
    assert 'lorafleet_retraining_suppressed_total{why="token_budget"} 1.0' in metrics
    await domain.fired(2)


async def test_of_a_migration_and_the_rules_for_one_new_base_model_the_first_one_trains(domain: Domain) -> None:
    bench, key = domain.bench, v1.RetrainingTrigger.NEW_BASE_MODEL
    await bench.record(pairs(domain.name, 8))
    follows = v1.TrainingRequested(
        job_id=f"migration-{domain.name}",
        domain=domain.name,
        hyperparameters=v1.Hyperparameters(rank=4, max_steps=2, batch_size=4),
        reason="tiny-llama has a new revision",
        triggers=(key,),
    )
    await domain.set(new_base_model=True)
    await bench.upstream.publish(follows)
    await bench.until(follows.job_id, "failed")  # its training is pretended
    await domain.activate(base_revision="a" * 64)
    (fired,) = await domain.fired()
    assert (fired["job_id"], fired["triggers"], fired["reason"]) == (follows.job_id, [key], follows.reason)

    other = Domain(replace(bench, domain=f"{domain.name}x"), domain.model)
    await bench.record(pairs(other.name, 8))
    await other.set(new_base_model=True)
    await other.activate(base_revision="a" * 64)
    (first,) = await other.fired()
    late = follows.model_copy(update={"domain": other.name, "job_id": f"migration-{other.name}"})
    await bench.upstream.publish(late)
    refused = await bench.until(late.job_id, "failed")
    assert f"job {first['job_id']} of the domain's retraining rules follows this base model" in refused["error"]
    await other.fired(1)
    await domain.fired(1)


async def test_drift_that_cannot_be_measured_is_listed_with_the_reason(domain: Domain) -> None:
    adapter_id = await domain.activate()
    await domain.set(drift={})
    held = await domain.held("not_measurable")
    assert held["detail"] == f"{adapter_id} came without vectors of its training prompts"


async def test_an_older_announcement_of_the_active_version_changes_nothing(domain: Domain) -> None:
    newer = await domain.activate("1.1.0")
    await domain.bench.upstream.publish(
        v1.AdapterDeactivated(
            adapter_id=f"{domain.name}-lora-v1.0.0", family=f"{domain.name}-lora", domain=domain.name, revision=9
        )
    )
    await domain.set(new_samples={"at_least": 1})
    await domain.bench.record(rated(domain.name, 1, 5.0))
    (fired,) = await domain.fired()
    assert fired["active_adapter"] == newer


async def test_a_family_that_was_taken_out_of_service_is_not_trained_again(domain: Domain) -> None:
    adapter_id = await domain.activate()
    await domain.set(new_samples={"at_least": 1})
    await domain.bench.upstream.publish(
        v1.AdapterDeactivated(adapter_id=adapter_id, family=f"{domain.name}-lora", domain=domain.name, revision=5000)
    )

    async def inactive() -> bool:
        async with domain.database() as connection:
            query = "select exists (select from active_adapters where domain = $1 and adapter_id = '')"
            return bool(await connection.fetchval(query, domain.name))

    await eventually(inactive, 30)
    await domain.bench.record(rated(domain.name, 3, 5.0))
    await domain.held("deactivated")
    assert (await domain.listed())["firings"] == []


@pytest.mark.heavy
async def test_a_trainer_killed_at_any_time_requests_one_job_for_one_cause(domain: Domain) -> None:
    bench = domain.bench
    async with domain.database() as connection:
        # It stops in the middle of its transaction, behind the firing and before its event.
        held = connection.transaction()
        await held.start()
        await connection.execute("lock table retraining_causes in exclusive mode")
        await domain.set(new_samples={"at_least": 8})
        await bench.record(pairs(domain.name, 8))

        await eventually(lambda: waits_for(connection, "retraining_causes"), 60)
        await bench.trainer.kill()
        await held.rollback()
    await bench.trainer.wait_ready()
    await asyncio.sleep(random.Random(2).uniform(0.0, 0.5))  # anywhere in an evaluation, or behind it
    await bench.trainer.kill()
    await bench.trainer.wait_ready()
    (fired,) = await domain.fired()
    await bench.until(fired["job_id"], "failed")
    published = [one for one in await bench.upstream.all("LORAFLEET_DATA") if isinstance(one, v1.TrainingRequested)]
    assert {one.job_id for one in published if one.domain == domain.name} == {fired["job_id"]}
    jobs = (await bench.trainer.client.get("/v1/jobs", params={"limit": 1000})).json()["jobs"]
    assert [one["job_id"] for one in jobs if one["domain"] == domain.name] == [fired["job_id"]]
    await domain.fired(1)


async def test_rules_that_could_never_train_are_refused_with_every_fault_and_others_domains_are_hidden(
    domain: Domain,
) -> None:
    training = {"method": "dora", "hyperparameters": {"rank": 9999, "epoch": 3}}
    refused = await domain.put(training=training)
    assert refused.status_code == 422
    fields = {one["field"] for one in refused.json()["faults"]}
    assert fields == {"training.hyperparameters.rank", "training.hyperparameters.epoch"}
    assert (await domain.put(schedule="0 3 * * *")).status_code == 422
    assert (await domain.put(training={"continueFrom": "x"})).status_code == 422
    bench = domain.bench
    shown = (await bench.trainer.client.get(f"/v1/retraining/{domain.name}")).json()
    assert (shown["rules"]["enabled"], shown["set_by"]) == (False, "")
    token = bench.trainer.mint(["train"], ["elsewhere"])
    async with httpx.AsyncClient(
        base_url=bench.trainer.url, headers={"Authorization": f"Bearer {token}"}, timeout=30
    ) as other:
        assert (await other.get(f"/v1/retraining/{domain.name}")).status_code in (403, 404)
        assert (await other.get(f"/v1/retraining/{domain.name}/firings")).status_code in (403, 404)
        assert (await other.get("/v1/retraining")).json() == {"rules": []}


async def test_a_request_that_the_active_version_does_not_fit_is_held_back_by_name(domain: Domain) -> None:
    await domain.activate()
    await domain.set(new_samples={"at_least": 1}, training={"hyperparameters": {**QUICK, "rank": 8}})
    await domain.bench.record(rated(domain.name, 1, 5.0))
    held = await domain.held("invalid_request")
    assert "hyperparameters.rank" in held["detail"]
    assert (await domain.listed())["firings"] == []


def _sample(domain: str, prompt: str) -> dict[str, Any]:
    return {"domain": domain, "prompt": prompt, "completion": "It is known.", "rating": 5}
