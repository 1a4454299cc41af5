"""Judges beside each other and beside people: pairs of versions, panels, labels, and how long exchanges are kept."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from fleet_events import v1
from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobMissing
from tests.integration.evaluator.conftest import Bus, activated, eventually
from tests.integration.evaluator.judge_server import (
    JudgeServer,
    ReceivedRequest,
    Step,
    gullible,
    honest,
    preferred,
    verdict,
)
from tests.integration.evaluator.llm_judge.conftest import Trial

pytestmark = pytest.mark.integration


def prefers(text: str) -> Any:
    """Prefers the answer with that text wherever it stands."""
    return lambda request: Step(
        json.dumps(preferred(request, "first" if text in request.part("FIRST ANSWER") else "second"))
    )


PAIRS = [
    prefers("A new answer."),
    lambda request: Step(json.dumps(preferred(request, "first"))),
    lambda request: Step(json.dumps(preferred(request, "tie"))),
    gullible,
]
"""What the judge does with the pair of each sample."""


@pytest.mark.requirement("LA-3.4")
async def test_a_new_versions_answers_are_compared_with_the_active_ones_in_both_orders(
    trial: Trial, judge: JudgeServer, bus: Bus, blobs: Blobs
) -> None:
    samples = trial.samples(5, criteria={})
    old = await trial.start("pairs", samples, dict.fromkeys(range(5), "An old answer."))
    assert isinstance(await trial.end(old), v1.EvaluationScored)
    await activated(bus, trial.evaluator, old, revision=int(trial.mark, 16))
    judge.requests = []
    judge.otherwise = lambda request: PAIRS[trial.number(request)](request) if request.pair else honest(request)
    new_answers = dict.fromkeys(range(5), "A new answer.") | {4: "An old answer."}
    scored = await trial.scored("pairs", samples, new_answers)

    assert scored.preference is not None
    event = scored.preference
    assert event.compared_with == old.adapter_id
    assert (event.samples, event.wins, event.losses, event.ties) == (4, 1, 0, 3)
    assert event.win_rate == pytest.approx((1 + 3 / 2) / 4)
    assert event.ci_low < event.win_rate < event.ci_high
    assert event.consistency == pytest.approx(3 / 4)
    assert event.position_bias == pytest.approx(1 / 4)
    compared = [one for one in judge.requests if one.pair and trial.number(one) == 0]
    assert len(compared) == 2  # both orders
    assert {one.part("FIRST ANSWER") for one in compared} == {"A new answer.", "An old answer."}
    assert not [one for one in judge.requests if one.pair and trial.number(one) == 4]  # the same answer

    shown = await trial.shown()
    assert shown["preference"]["consistency"] == event.consistency
    assert [one["pair"]["outcome"] for one in shown["results"]] == ["win", "tie", "tie", None, "tie"]
    assert "no verdict in 3 answers" in shown["results"][3]["pair"]["why"]
    report = json.loads(await blobs.get(scored.report))
    assert report["preference"]["wins"] == 1
    assert len(report["judging"]["exchanges"]) == 5 + 3 * 2 + 2 * 3  # three pairs, and one asked for thrice
    assert report["samples"][0]["pair"]["verdicts"]["new_second"] == {"preferred": "second", "reason": "compared"}


@pytest.mark.requirement("LA-3.4")
async def test_a_panel_compares_pairs_by_those_of_its_members_that_do(
    trial: Trial, judge: JudgeServer, bus: Bus
) -> None:
    """Both prefer the new answer of sample 0, they differ on 1, and the second has no verdict on 2."""

    def by_model(request: ReceivedRequest) -> Step:
        if not request.pair:
            return honest(request)
        number, other = trial.number(request), request.body["model"] == "other-model"
        if number == 2 and other:
            return gullible(request)
        return prefers("An old answer." if number == 1 and other else "A new answer.")(request)

    samples = trial.samples(3, criteria={})
    old = await trial.start("comparing", samples, dict.fromkeys(range(3), "An old answer."))
    assert isinstance(await trial.end(old), v1.EvaluationScored)
    await activated(bus, trial.evaluator, old, revision=int(trial.mark, 16))
    judge.requests, judge.otherwise = [], by_model
    scored = await trial.scored("comparing", samples, dict.fromkeys(range(3), "A new answer."))
    assert scored.preference is not None
    assert (scored.preference.samples, scored.preference.wins, scored.preference.ties) == (2, 1, 1)
    compared = {(one.body["model"], trial.number(one)) for one in judge.requests if one.pair}
    assert compared == {(model, n) for model in ("judge-model", "other-model") for n in range(3)}
    shown = await trial.shown()
    assert "1 of 2 members have a verdict; other-pairs/1+" in shown["results"][2]["pair"]["why"]


@pytest.mark.heavy
@pytest.mark.requirement("LA-3.5")
async def test_a_panels_votes_on_pairs_weigh_what_people_think_of_the_answers(
    trial: Trial, judge: JudgeServer, bus: Bus
) -> None:
    """One member prefers the new answers, as people do, the other the old ones."""

    def by_model(request: ReceivedRequest) -> Step:
        if not request.pair:
            return honest(request)
        return prefers("An old answer." if request.body["model"] == "other-model" else "A new answer.")(request)

    client, samples = trial.evaluator.client, trial.samples(10, criteria={})
    old = await trial.start("voting", samples, dict.fromkeys(range(10), "An old answer."))
    before = await trial.end(old)
    assert isinstance(before, v1.EvaluationScored)
    await activated(bus, trial.evaluator, old, revision=int(trial.mark, 16))
    judge.otherwise = by_model
    scored = await trial.scored("voting", samples, dict.fromkeys(range(10), "A new answer."))
    assert scored.preference is not None
    assert (scored.preference.wins, scored.preference.ties) == (0, 10)

    for evaluation_id, score in ((before.evaluation_id, 40), (scored.evaluation_id, 80)):
        for number in range(10):
            path = f"/v1/evaluations/{evaluation_id}/samples/s{number:03}/label"
            assert (await client.put(path, json={"score": score})).status_code == 200
    shown = await trial.shown()
    assert shown["agreement"]["preferences"]["rate"]["value"] == 0.5  # the panel's own: ties
    agreed = {}
    for name in shown["judging"]["parameters"]:
        if "pairs/" in name:
            query = {"judge": name, "domain": "voting"}
            found = (await client.get("/v1/judges/agreement", params=query)).json()["preferences"]
            fitted = (await client.post("/v1/judges/calibration", json=query)).json()
            agreed[name.partition("/")[0]] = (found["rate"]["value"], fitted["pairs"], fitted["pairs_agreed"])
    assert agreed == {"pairs": (1, 10, 10), "other-pairs": (0, 10, 0)}

    again = (await client.post("/v1/evaluations", json={"adapter_id": scored.adapter_id})).json()["evaluation_id"]
    (after,) = await eventually(lambda: bus.published(v1.EvaluationScored, evaluation_id=again))
    assert after.preference is not None
    assert (after.preference.wins, after.preference.ties) == (10, 0)


@pytest.mark.heavy
@pytest.mark.requirement("LA-3.5")
async def test_a_panel_gives_the_mean_of_scores_that_people_calibrated(
    trial: Trial, judge: JudgeServer, bus: Bus
) -> None:
    """The harsh member gives two points less than people; calibrated, both give the same."""

    def by_model(request: ReceivedRequest) -> Step:
        score = 3 + trial.number(request) % 7
        return Step(json.dumps(verdict(request, score - 2 if request.body["model"] == "harsh-model" else score)))

    judge.otherwise = by_model
    samples = trial.samples(20, criteria={})
    client = trial.evaluator.client
    before = await trial.scored("house", samples, dict.fromkeys(range(20), "A good many of the Velmar kind."))
    assert before.judge.startswith("house/1+")
    assert before.agreement is None
    shown = await trial.shown()
    assert [one["overall"] for one in shown["results"][:3]] == [20.0, 30.0, 40.0]  # the reference judge abstains
    harsh = next(name for name in shown["judging"]["parameters"] if name.startswith("harsh/"))
    assert shown["results"][0]["evidence"]["members"][harsh]["overall"] == 10

    calibration = {"judge": harsh, "domain": "house"}
    early = await client.post("/v1/judges/calibration", json=calibration)
    assert (early.status_code, early.json()["field"]) == (409, "judge")
    for number in range(20):
        path = f"/v1/evaluations/{before.evaluation_id}/samples/s{number:03}/label"
        assert (await client.put(path, json={"score": 10 * (3 + number % 7)})).status_code == 200
    fitted = await client.post("/v1/judges/calibration", json=calibration)
    assert fitted.status_code == 201, fitted.text
    assert fitted.json()["intercept"] == pytest.approx(20)
    assert (fitted.json()["slope"], fitted.json()["answers"]) == (pytest.approx(1), 20)

    again = (await client.post("/v1/evaluations", json={"adapter_id": before.adapter_id})).json()["evaluation_id"]
    (after,) = await eventually(lambda: bus.published(v1.EvaluationScored, evaluation_id=again))
    assert after.judge != before.judge
    assert after.score == pytest.approx(before.score + 10)
    results = (await client.get(f"/v1/evaluations/{again}")).json()["results"]
    assert [one["overall"] for one in results[:3]] == pytest.approx([30.0, 40.0, 50.0])
    assert after.agreement is not None
    assert (after.agreement.answers, after.agreement.alpha) == (20, pytest.approx(1))


async def test_old_exchanges_leave_database_and_object_store(trial: Trial, blobs: Blobs) -> None:
    scored = await trial.scored("strict", trial.samples(2))
    kept = json.loads(await blobs.get(scored.report))["judging"]["exchanges"]
    request = v1.Blob(**kept[0]["request"])
    assert await blobs.get(request)
    connection = await asyncpg.connect(
        trial.evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    try:
        await connection.execute(
            "update judge_exchange set asked_at = now() - interval '401 days' where evaluation_id = $1",
            scored.evaluation_id,
        )
        await trial.evaluator.kill()
        await trial.evaluator.wait_ready()

        async def gone() -> bool:
            left = "select count(*) from judge_exchange where evaluation_id = $1"
            return int(await connection.fetchval(left, scored.evaluation_id)) == 0

        await eventually(gone)
    finally:
        await connection.close()
    with pytest.raises(BlobMissing):
        await blobs.get(request)


@pytest.mark.requirement("LA-3.5")
async def test_peoples_scores_stand_beside_the_judges(trial: Trial, judge: JudgeServer) -> None:
    by_number = {trial.word(number): 1 + number for number in range(8)}
    for word, score in by_number.items():
        judge.scripts[word] = [lambda request, score=score: Step(json.dumps(verdict(request, score)))]
    scored = await trial.scored("strict", trial.samples(8))
    before = (await trial.shown())["agreement"]
    assert (before["answers"], before["alpha"]) == (0, None)

    async def put(sample_id: str, **body: Any) -> int:
        path = f"/v1/evaluations/{scored.evaluation_id}/samples/{sample_id}/label"
        return (await trial.evaluator.client.put(path, json=body)).status_code

    for number in range(8):
        assert await put(f"s{number:03}", score=5) == 200  # thought better of below
        assert await put(f"s{number:03}", score=10 * number, note="as I see it") == 200
    assert await put("s999", score=5) == 404
    assert await put("s001", score=101) == 422
    found = (await trial.shown())["agreement"]
    assert (found["answers"], found["bias"]) == (8, pytest.approx(10))
    assert found["pairwise"]["value"] == 1
    assert found["alpha"]["low"] <= found["alpha"]["value"] < 1
    query = {"judge": scored.judge, "domain": "strict"}
    assert (await trial.evaluator.client.get("/v1/judges/agreement", params=query)).json() == found
