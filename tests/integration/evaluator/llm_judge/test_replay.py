"""Verdicts replayed from what is kept of the exchanges with a judge, and asked for again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from fleet_events import v1
from fleet_kit.blobs import Blobs
from tests.integration.evaluator.conftest import Bus, activated
from tests.integration.evaluator.judge_server import (
    JudgeServer,
    ReceivedRequest,
    Step,
    honest,
    preferred,
    verdict,
    writes,
)
from tests.integration.evaluator.llm_judge.conftest import Trial

pytestmark = [pytest.mark.integration, pytest.mark.requirement("LA-3.2")]


@pytest.fixture
async def database(trial: Trial) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        trial.evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    try:
        yield connection
    finally:
        await connection.close()


async def replayed(trial: Trial, **body: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any]]:
    """What is replayed, each sample by its id, and what it took."""
    answer = await trial.evaluator.client.post(f"/v1/evaluations/{trial.event_id}/replay", json=body)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    head, *rest = [json.loads(line) for line in lines]
    return (
        head,
        {one["sample_id"]: one for one in rest if "sample_id" in one},
        next((one["spent"] for one in rest if "spent" in one), {}),
    )


async def test_recorded_answers_give_the_recorded_verdicts_without_a_request(trial: Trial, judge: JudgeServer) -> None:
    """One sample got its verdict at the second attempt, one never."""
    samples = trial.samples(4, criteria={})
    judge.scripts = {trial.word(1): [writes("no verdict"), honest], trial.word(2): [writes("never")]}
    await trial.scored("strict", samples, {3: "Twelve crates."})
    judge.requests = []
    head, found, spent = await replayed(trial)
    assert (head["samples"], head["requests"], head["again"]) == (4, 1 + 2 + 3 + 1, False)
    assert head["judge"] == head["replayed_by"]
    assert [one["agrees"] for one in found.values()] == [True] * 4
    assert [one["replayed"]["overall"] for one in found.values()] == [90.0, 90.0, None, 20.0]
    assert found["s002"]["replayed"]["standing"] == "unjudged"
    assert spent == {}
    assert judge.requests == []


@pytest.mark.parametrize("who", ["house", "sparing", "poor", "thrice"])
async def test_panels_rules_budgets_and_several_verdicts_are_replayed_too(
    trial: Trial, judge: JudgeServer, who: str
) -> None:
    def of_many(request: ReceivedRequest) -> Step:
        return Step(json.dumps(verdict(request, {0: 8, 3: 2, 6: 9}[request.body["seed"]])))

    judge.otherwise = of_many if who == "thrice" else honest
    answers = {0: "The store takes many crates.", 1: "Store 1 takes 12 crates of the Velmar kind."}
    await trial.scored(who, trial.samples(5), answers)
    judge.requests = []
    _, found, _ = await replayed(trial)
    assert {name: one["missing"] for name, one in found.items() if not one["agrees"]} == {}
    assert judge.requests == []


async def test_a_verdict_that_differs_and_one_whose_exchange_is_gone_are_named(
    trial: Trial, judge: JudgeServer, blobs: Blobs, database: asyncpg.Connection
) -> None:
    """As after a change of the scoring code; of the gone ones, one lost its row, one its content."""
    await trial.scored("strict", trial.samples(4))
    kept = (await trial.evaluator.client.get(f"/v1/evaluations/{trial.event_id}/exchanges")).json()
    assert kept["total"] == 4
    assert {one["request"] for one in kept["exchanges"]} == {None}
    evaluation = trial.event_id
    await database.execute(
        "update sample_result set overall = 70 where evaluation_id = $1 and sample_id = 's000'", evaluation
    )
    await database.execute("delete from judge_exchange where evaluation_id = $1 and sample_id = 's001'", evaluation)
    [lost] = await database.fetch(
        "select answer from judge_exchange where evaluation_id = $1 and sample_id = 's002'", evaluation
    )
    await blobs.delete(v1.Blob.model_validate_json(lost["answer"]))
    _, found, _ = await replayed(trial)
    assert {name: one["agrees"] for name, one in found.items()} == {
        **dict.fromkeys(["s000", "s001", "s002"], False),
        "s003": True,
    }
    assert (found["s000"]["recorded"]["overall"], found["s000"]["replayed"]["overall"]) == (70.0, 90.0)
    assert found["s001"]["missing"] == "its exchanges with the judge are not kept any more"
    assert found["s002"]["missing"].endswith("has left the object store")

    path = f"/v1/evaluations/{evaluation}/exchanges"
    [gone] = (await trial.evaluator.client.get(path, params={"sample_id": "s002", "content": True})).json()["exchanges"]
    assert (gone["answer"], gone["missing"]) == (None, found["s002"]["missing"])
    [there] = (await trial.evaluator.client.get(path, params={"sample_id": "s003", "content": True})).json()[
        "exchanges"
    ]
    [request] = judge.about(trial.word(3))
    assert json.loads(there["request"]) == request.body
    assert json.loads(json.loads(there["answer"])["choices"][0]["message"]["content"])["canary"]


async def test_asked_again_the_judge_gets_the_recorded_requests_and_may_judge_otherwise(
    trial: Trial, judge: JudgeServer, bus: Bus
) -> None:
    """Of pairs, too; what is recorded stays."""
    samples = trial.samples(3, criteria={})
    old = await trial.start("pairs", samples, dict.fromkeys(range(3), "An old answer."))
    assert isinstance(await trial.end(old), v1.EvaluationScored)
    await activated(bus, trial.evaluator, old, revision=int(trial.mark, 16))
    judge.requests = []
    await trial.scored("pairs", samples)
    before = sorted(json.dumps(one.body) for one in judge.requests)
    shown = await trial.shown()

    _, found, _ = await replayed(trial)
    assert [one["recorded"]["pair"] for one in found.values()] == ["tie"] * 3
    assert all(one["agrees"] for one in found.values())

    judge.requests = []
    judge.scripts = {
        trial.word(0): [lambda request: honest(request) if request.pair else Step(json.dumps(verdict(request, 5)))],
        trial.word(1): [
            lambda request: Step(json.dumps(preferred(request, "first"))) if request.pair else honest(request)
        ],
    }
    head, found, spent = await replayed(trial, again=True)
    assert (head["requests"], head["again"], spent["requests"]) == (9, True, 9)
    assert sorted(json.dumps(one.body) for one in judge.requests) == before
    assert [one["agrees"] for one in found.values()] == [False, True, True]  # "first" in both orders is a tie
    assert [one["replayed"]["overall"] for one in found.values()] == [50.0, 90.0, 90.0]
    assert await trial.shown() == shown


async def test_asked_again_the_judge_keeps_to_its_budget(trial: Trial, judge: JudgeServer) -> None:
    await trial.scored("poor", trial.samples(3))
    judge.requests = []
    judge.otherwise = lambda request: Step(json.dumps(verdict(request, 11)))  # no verdict: each is asked again
    _, found, spent = await replayed(trial, again=True)
    assert len(judge.requests) == spent["requests"] == 3  # 1,100 tokens each, 3,300 in all
    assert not any(one["agrees"] for one in found.values())


async def test_one_sample_is_replayed_and_an_unknown_one_refused(trial: Trial) -> None:
    await trial.scored("strict", trial.samples(2))
    _, found, _ = await replayed(trial, sample_id="s001")
    assert list(found) == ["s001"]
    refused = await trial.evaluator.client.post(f"/v1/evaluations/{trial.event_id}/replay", json={"sample_id": "s009"})
    assert (refused.status_code, refused.json()["field"]) == (404, "sample_id")
