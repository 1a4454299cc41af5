"""Answers of an evaluation that inference computes as a batch, behind its users' requests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.evaluator.conftest import Bus, Golden, adapter, eventually, outcome, sample, teach
from tests.integration.evaluator.model_server import ModelServer

pytestmark = [pytest.mark.integration, pytest.mark.requirement("LA-3.1")]


@pytest.fixture(autouse=True)
def _batches(models: ModelServer) -> Iterator[None]:
    models.computes_batches = True
    models.questions.clear()
    models.files.clear()
    models.batches.clear()
    yield
    models.computes_batches = models.holds_batches = False
    models.refuses_in_batches = set()


async def started(golden: Golden, bus: Bus, models: ModelServer, domain: str, count: int) -> v1.Adapter:
    samples = [sample(number) for number in range(count)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    return who


async def test_all_answers_come_from_one_batch_whose_files_are_deleted_then(
    golden: Golden, bus: Bus, models: ModelServer, domain: str
) -> None:
    models.headers.clear()
    who = await started(golden, bus, models, domain, 6)
    scored = await outcome(bus, who.adapter_id)
    assert isinstance(scored, v1.EvaluationScored), scored
    assert (scored.samples, scored.decided) == (6, 6)
    assert scored.artifact_sha256 == who.artifact.blob.sha256
    assert [one["metadata"] for one in models.batches.values()] == [{"lorafleet_evaluation": scored.evaluation_id}]
    assert set(models.questions.values()) == {1}
    assert "/v1/chat/completions" not in [path for path, _ in models.headers]
    assert models.files == {}


async def test_what_the_batch_left_without_an_answer_is_requested(
    golden: Golden, bus: Bus, models: ModelServer, domain: str
) -> None:
    models.refuses_in_batches = {"s002"}
    models.headers.clear()
    who = await started(golden, bus, models, domain, 4)
    scored = await outcome(bus, who.adapter_id)
    assert isinstance(scored, v1.EvaluationScored), scored
    assert scored.decided == 4
    assert [path for path, _ in models.headers].count("/v1/chat/completions") == 1
    assert models.questions[who.adapter_id, sample(2)["prompt"]] == 1


async def test_an_answer_of_another_artifact_ends_the_evaluation(
    golden: Golden, bus: Bus, models: ModelServer, domain: str
) -> None:
    models.holds_batches = True
    who = await started(golden, bus, models, domain, 2)
    await eventually(lambda: _has_batch(models))
    models.adapters[who.adapter_id] = "f" * 64
    models.holds_batches = False
    failed = await outcome(bus, who.adapter_id)
    assert isinstance(failed, v1.EvaluationFailed), failed
    assert "is to be judged" in failed.reason


async def test_an_evaluation_that_is_taken_up_again_waits_for_the_batch_that_it_has(
    golden: Golden, bus: Bus, models: ModelServer, domain: str
) -> None:
    """As one does whose evaluator died after the batch was made."""
    samples = [sample(number) for number in range(3)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    lines = [
        {"custom_id": one["sample_id"], "body": {"model": who.adapter_id, "messages": [{"content": one["prompt"]}]}}
        for one in samples
    ]
    models.files["file-before"] = "\n".join(json.dumps(one) for one in lines).encode()
    models.batches["batch-before"] = {
        **{"id": "batch-before", "status": "in_progress", "input_file_id": "file-before"},
        **{"created_at": int(time.time()), "in_progress_at": 1, "metadata": {"lorafleet_evaluation": f"{domain}-e"}},
    }
    requested = v1.EvaluationRequested(
        evaluation_id=f"{domain}-e", adapter_id=who.adapter_id, domain=domain, golden_dataset_id=f"{domain}-golden"
    )
    await bus.publish(requested, "registry", who.adapter_id)
    scored = await outcome(bus, who.adapter_id)
    assert isinstance(scored, v1.EvaluationScored), scored
    assert (scored.decided, list(models.batches)) == (3, ["batch-before"])
    assert sorted(models.questions.values()) == [1] * 3


@pytest.mark.heavy  # a new process of the evaluator takes its time; the test before this one proves the same of its state
async def test_a_killed_evaluator_continues_its_batch_and_neither_generates_nor_judges_twice(
    golden: Golden, bus: Bus, models: ModelServer, domain: str, evaluator: RunningService
) -> None:
    models.holds_batches = True
    who = await started(golden, bus, models, domain, 5)
    await eventually(lambda: _has_batch(models))
    await evaluator.kill()
    models.holds_batches = False
    await evaluator.wait_ready()
    scored = await outcome(bus, who.adapter_id)
    assert isinstance(scored, v1.EvaluationScored), scored
    assert scored.decided == 5
    assert len(models.batches) == 1
    assert sorted(models.questions.values()) == [1] * 5
    assert len(await bus.published(v1.EvaluationScored, adapter_id=who.adapter_id)) == 1


async def _has_batch(models: ModelServer) -> bool:
    return bool(models.batches)
