"""A rollout that the judge decides: recorded answers of both versions, the evaluator with a scripted judge, the registry."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService, RunService
from tests.integration.evaluator.judge_server import JudgeServer, ReceivedRequest, Step, judging, verdict
from tests.integration.registry.conftest import Get, Upstream, eventually
from tests.integration.registry.rolling import RULES, Trial, outcomes, trial_of

pytestmark = pytest.mark.integration

JUDGED = RULES | {"metrics": {"judge": 0}, "judge_share": 1, "minimum_scores": 4}


def strict(request: ReceivedRequest) -> Step:
    """Good answers open at nine."""
    return Step(json.dumps(verdict(request, 9 if "nine" in request.part("ANSWER TO JUDGE") else 3)))


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgeServer]:
    with judging(JudgeServer(key="", otherwise=strict)) as server:
        yield server


@pytest.fixture(scope="module")
async def evaluator(run_service: RunService, judge: JudgeServer) -> AsyncIterator[RunningService]:
    async with run_service(
        "evaluator",
        LORAFLEET_INFERENCE_URL="http://127.0.0.1:9",  # live answers are not asked for again
        LORAFLEET_JUDGES=json.dumps({"strict": {"url": judge.url, "model": "judge-model"}}),
        LORAFLEET_JUDGE="strict",
    ) as running:
        yield running


@pytest.fixture
async def trial(registry: RunningService, upstream: Upstream, adapters: Get, domain: str) -> Trial:
    return await trial_of(registry, upstream, adapters, domain, delivery=JUDGED, record_answers="all")


async def recorded(trial: Trial, arm: str, answer: str) -> v1.GenerationRecorded:
    """Inference's record of an answer of one version."""
    [given] = await trial.answer(arm)
    event = v1.GenerationRecorded(
        generation_id=given.generation_id,
        domain=trial.domain,
        adapter_id=given.adapter_id,
        base_model=v1.BaseModel(name=trial.upstream.base_name, revision=trial.upstream.revision),
        sampling=v1.Sampling(),
        messages=(v1.Turn(role="user", content="When do you open?"),),
        answer=answer,
        consent=v1.Consent(record_answers=v1.RecordAnswers.ALL, personal_data=v1.PersonalDataAction.MASK, revision=1),
        rollout=given.rollout.model_copy(update={"judge_share": 1.0}) if given.rollout else None,
    )
    await trial.upstream.publish(event)
    return event


@pytest.mark.requirement("LA-3.4")
async def test_a_candidate_that_is_worse_to_the_judge_alone_is_rolled_back(
    trial: Trial, evaluator: RunningService
) -> None:
    async def announced() -> Any:
        return [one for one in await trial.facts() if isinstance(one, v1.CanaryStarted)]

    [begun] = await eventually(announced)
    assert begun.rollout.judge_share == 1
    for _ in range(25):
        await recorded(trial, "incumbent", "We open at nine.")
        await recorded(trial, "candidate", "We open.")
    view = await trial.until(state="rolled_back")
    candidate = trial.versions["candidate"]["adapter_id"]
    assert view["reason"].startswith(f"judge of {candidate} is worse: 30.000 of ")
    [found] = view["evidence"]
    assert (found["candidate"], found["incumbent"]) == (pytest.approx(30), pytest.approx(90))
    assert found["ci_high"] < 0
    assert found["log_evidence"] >= found["line"]
    assert (await trial.truth())[0] == trial.versions["incumbent"]["adapter_id"]


async def test_a_score_counts_once_for_the_version_that_answered_and_none_counts_for_nothing(trial: Trial) -> None:
    part, version = await trial.part("candidate"), trial.versions["candidate"]["adapter_id"]
    score = v1.AnswerJudged(
        generation_id=f"gen-{secrets.token_hex(6)}",
        adapter_id=version,
        domain=trial.domain,
        rollout=part,
        score=70.0,
        judge="strict/1",
    )
    await trial.upstream.publish(score)
    await trial.upstream.publish(score)  # as another event
    abstained = score.model_copy(update={"generation_id": "gen-none", "score": None, "why": "no judge"})
    wrong = score.model_copy(update={"adapter_id": trial.versions["incumbent"]["adapter_id"]})
    for event in (abstained, wrong, score.model_copy(update={"generation_id": f"gen-{secrets.token_hex(6)}"})):
        await trial.upstream.publish(event)

    async def counted() -> Any:
        view = await trial.view()
        return view if outcomes(view, "judge") == (2, 0) else None

    view = await eventually(counted)
    assert view["evidence"][0]["candidate"] == pytest.approx(70)


async def test_rules_that_no_answer_can_be_judged_under_are_refused_by_name(
    trial: Trial, registry: RunningService
) -> None:
    path = f"/v1/policies/{trial.domain}"
    policy = {"allow_approval_without_evaluation": True, "delivery": JUDGED}
    refused = await registry.client.put(path, json=policy)
    assert (refused.status_code, refused.json()["field"]) == (422, "delivery.metrics"), refused.text
    assert "record_answers is none" in refused.text
    shadow = policy | {"record_answers": "all", "delivery": JUDGED | {"mode": "shadow"}}
    refused = await registry.client.put(path, json=shadow)
    assert refused.status_code == 422
    assert "shadow candidate's never are" in refused.text
    await trial.move("roll-back", "to begin another")
    begin = {"candidate": trial.versions["candidate"]["adapter_id"], "mode": "shadow"}
    refused = await registry.client.post(f"/v1/families/{trial.family}/rollout", json=begin)
    assert refused.status_code == 409
    assert "do not go with this mode" in refused.text
