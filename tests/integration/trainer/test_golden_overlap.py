"""Golden data sets stay unseen: the evaluator publishes prints of them, the trainer keeps off what they hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import STREAM
from fleet_kit.text_fingerprints import digest
from services.trainer.datasets.golden.index import GoldenIndex
from services.trainer.datasets.golden.known import golden_index
from tests.conftest import RunningService, RunService
from tests.integration.trainer.answering import opinion, publish_as, recorded
from tests.integration.trainer.building import built
from tests.integration.trainer.conftest import Bench, Upstream, eventually

pytestmark = pytest.mark.integration

PROMPT = "Within how many days must a tenant be told that the deposit is kept, and in which form?"


@pytest.fixture(scope="module")
async def evaluator(run_service: RunService) -> AsyncIterator[RunningService]:
    async with run_service("evaluator") as running:
        yield running


def golden(count: int, *, first: str = PROMPT) -> str:
    samples = [{"prompt": first, "expected_output": "Within 30 days, in writing."}]
    samples += [
        {"prompt": f"Question {number} about clause {number * 7} of the lease?", "expected_output": f"Answer {number}."}
        for number in range(1, count)
    ]
    return "".join(json.dumps(sample) + "\n" for sample in samples)


async def publish(evaluator: RunningService, dataset: str, body: str, *, replace: bool = False) -> dict[str, Any]:
    made = await evaluator.client.post("/v1/golden", json={"dataset_id": dataset, "domain": "lease"})
    assert made.status_code in (200, 201), made.text
    stored = await evaluator.client.post(
        f"/v1/golden/{dataset}/samples", params={"replace": replace}, content=body.encode()
    )
    assert stored.status_code == 200, stored.text
    return dict(stored.json())


async def known(trainer: RunningService, reference: str) -> GoldenIndex:
    connection = await asyncpg.connect(
        trainer.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "trainer"}
    )
    try:
        index = await golden_index(connection)
    finally:
        await connection.close()
    return GoldenIndex(tuple(one for one in index.prints if one.reference == reference))


@pytest.mark.requirement("AS-3.1")
async def test_the_trainer_learns_of_every_golden_prompt_and_of_no_golden_text(
    bench: Bench, evaluator: RunningService, jetstream: JetStreamContext
) -> None:
    await publish(evaluator, "big", golden(900))

    async def complete() -> GoldenIndex | None:
        index = await known(bench.trainer, "big@1.0.0")
        return index if len(index.prints) == 900 else None

    index: GoldenIndex = await eventually(complete)
    assert digest(PROMPT) in index.equal
    events = [one for one in await Upstream(jetstream).all(STREAM) if isinstance(one, v1.GoldenDatasetPublished)]
    assert [(one.part, one.parts) for one in events if one.dataset_id == "big"] == [(1, 3), (2, 3), (3, 3)]
    assert "tenant" not in "".join(one.to_json().decode() for one in events)


async def test_a_changed_golden_set_takes_the_place_of_what_it_was(bench: Bench, evaluator: RunningService) -> None:
    await publish(evaluator, "changing", golden(1))
    await publish(evaluator, "changing", golden(1, first="Another question altogether?"), replace=True)

    async def replaced() -> bool:
        index = await known(bench.trainer, "changing@1.0.0")
        return set(index.equal) == {digest("Another question altogether?")}

    await eventually(replaced)


@pytest.mark.requirement("AS-3.1")
async def test_what_a_golden_set_of_any_domain_holds_is_trained_on_nowhere_and_the_card_says_which(
    bench: Bench, evaluator: RunningService
) -> None:
    await publish(evaluator, "anywhere", golden(2))
    samples = [
        {"domain": bench.domain, "prompt": prompt, "completion": "Within 30 days."}
        for prompt in (PROMPT, PROMPT.upper() + " ", PROMPT.replace("form?", "shape?"), "What is a lease?")
    ]
    await bench.record(samples)
    asked = (v1.Turn(role="user", content=PROMPT),)
    await publish_as(bench, recorded(bench, "answer", "Never.", messages=asked))
    await publish_as(bench, opinion(bench, "answer", correction="Within 31 days."))
    recipe = {"domain": bench.domain, "name": "clean", "sources": [{"kind": "live"}]}
    queued = await bench.trainer.client.post("/v1/datasets", json=recipe)
    assert queued.status_code == 202, queued.text

    async def built() -> dict[str, Any] | None:
        build = (await bench.trainer.client.get(f"/v1/datasets/builds/{queued.json()['build_id']}")).json()
        assert build["state"] != "failed", build
        return build if build["state"] == "succeeded" else None

    build = await eventually(built)
    card = (await bench.trainer.client.get(f"/v1/datasets/{build['dataset_id']}/card")).json()
    assert card["samples"] == 1
    assert card["filtered"]["golden"]["anywhere@1.0.0"] == 4
    assert len(card["filtered"]["filters"]["golden"]["samples"]) == 4


async def test_a_job_of_which_all_is_golden_fails_and_says_so(bench: Bench, evaluator: RunningService) -> None:
    await publish(evaluator, "all", golden(1))
    await bench.record([{"domain": bench.domain, "prompt": PROMPT, "completion": "Within 30 days."}])
    job = await bench.until(await bench.submit(), "failed")
    assert "golden" in job["error"]


@pytest.mark.heavy
@pytest.mark.requirement("AS-3.1")
async def test_what_became_golden_after_a_data_set_was_built_fails_its_job_before_the_first_step(
    bench: Bench, evaluator: RunningService
) -> None:
    requested = "Which colour has the gate that the caretaker of the northern hall painted over the winter?"
    lines = [
        {"domain": bench.domain, "prompt": requested, "completion": "Blue."},
        {"domain": bench.domain, "prompt": requested.replace("winter", "summer"), "completion": "Green."},
        {"domain": bench.domain, "prompt": "Who has the key of the cellar?", "completion": "The caretaker."},
    ]
    await bench.record(lines)
    dataset_id, records = await built(bench, {"kind": "live"})
    assert len(records) == 3, "nothing of it is golden yet"
    await publish(evaluator, "late", golden(1, first=requested))

    job_id = await bench.submit(dataset_id=dataset_id)
    failed = await bench.until(job_id, "failed")
    assert failed["error"].startswith("dataset_id: 2 of its 3 records are in golden data sets by now (late@1.0.0)")
    assert "build the data set again" in failed["error"]
    assert (failed["step"], await bench.metrics(job_id)) == (0, [])
    assert await bench.upstream.published(v1.TrainingStarted, job_id) == []

    rebuilt, records = await built(bench, {"kind": "live"})
    assert [record.prompt_text for record in records] == ["Who has the key of the cellar?"]
    done = await bench.until(await bench.submit(dataset_id=rebuilt), "succeeded")
    assert done["dataset"] == rebuilt


async def test_a_golden_set_that_was_never_published_is_published_when_the_evaluator_starts(
    bench: Bench, evaluator: RunningService
) -> None:
    await publish(evaluator, "old", golden(1))
    connection = await asyncpg.connect(
        evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    # As a version of a release before this one: stored, and never said.
    await connection.execute("update golden_dataset set revision = 0 where dataset_id = 'old'")
    await connection.close()
    events = len([one for one in await bench.upstream.all(STREAM) if _about(one, "old")])
    await evaluator.stop()
    await evaluator.start()

    async def again() -> bool:
        return len([one for one in await bench.upstream.all(STREAM) if _about(one, "old")]) == events + 1

    await eventually(again)
    assert digest(PROMPT) in (await known(bench.trainer, "old@1.0.0")).equal


def _about(event: object, dataset: str) -> bool:
    return isinstance(event, v1.GoldenDatasetPublished) and event.dataset_id == dataset
