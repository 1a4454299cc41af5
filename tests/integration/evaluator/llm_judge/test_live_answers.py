"""Live answers of rollouts: judged once, within the budget, by who can judge them, and kept nowhere."""

from __future__ import annotations

import json
import secrets
from typing import Any

import asyncpg
import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.evaluator.conftest import Bus, consumed, eventually
from tests.integration.evaluator.judge_server import JudgeServer, ReceivedRequest, Step, verdict

pytestmark = pytest.mark.integration

CONSENT = v1.Consent(record_answers=v1.RecordAnswers.ALL, personal_data=v1.PersonalDataAction.MASK, revision=1)
ANSWER = "Velmar's counter opens at nine."


def recorded(domain: str, rollout_id: str, **changes: Any) -> v1.GenerationRecorded:
    fields: dict[str, Any] = {
        "generation_id": f"gen-{secrets.token_hex(6)}",
        "domain": domain,
        "adapter_id": f"{domain}-lora-v1.0.1",
        "base_model": v1.BaseModel(name="tiny", revision="0" * 64),
        "sampling": v1.Sampling(),
        "messages": (v1.Turn(role="user", content=f"When does {rollout_id} open?"),),
        "answer": ANSWER,
        "consent": CONSENT,
        "rollout": v1.RolloutPart(rollout_id=rollout_id, step=1, arm=v1.RolloutArm.CANDIDATE, judge_share=1.0),
    }
    return v1.GenerationRecorded(**fields | changes)


def reads_no_reference(request: ReceivedRequest) -> Step:
    assert "REFERENCE" not in request.text
    return Step(json.dumps(verdict(request, 8)))


@pytest.fixture(autouse=True)
def _without_reference(_honest: None, judge: JudgeServer) -> None:
    judge.otherwise = reads_no_reference


@pytest.fixture
def rollout() -> str:
    return f"v-{secrets.token_hex(6)}"


async def published(bus: Bus, event: v1.GenerationRecorded) -> None:
    await bus.publish(event, "inference", event.generation_id)


async def judged(bus: Bus, rollout: str, number: int) -> list[v1.AnswerJudged]:
    """What the evaluator published of a rollout's answers, once it is so much."""

    async def all_of_them() -> list[v1.AnswerJudged]:
        found = [one for one in await bus.published(v1.AnswerJudged) if one.rollout.rollout_id == rollout]
        return found if len(found) >= number else []

    return list(await eventually(all_of_them))


@pytest.mark.requirement("LA-3.4")
async def test_a_rollouts_answer_is_judged_without_a_reference_once_however_often_it_is_delivered(
    evaluator: RunningService, bus: Bus, judge: JudgeServer, rollout: str
) -> None:
    event = recorded("strict", rollout)
    unpicked = event.rollout.model_copy(update={"judge_share": 0.0}) if event.rollout else None
    others = (recorded("strict", rollout, rollout=None), recorded("strict", rollout, rollout=unpicked))
    for other in others:
        await published(bus, other)
    await published(bus, event)
    [found] = await judged(bus, rollout, 1)
    await published(bus, event)  # under another id
    assert (found.generation_id, found.adapter_id, found.rollout) == (
        event.generation_id,
        event.adapter_id,
        event.rollout,
    )
    assert (found.score, found.why) == (80, "")
    assert found.judge.startswith("strict/1+")
    await consumed(bus, v1.GenerationRecorded)
    assert len(await judged(bus, rollout, 1)) == len(judge.about(rollout)) == 1
    # Of the texts nothing is kept, of the judge's answer only what it cost.
    connection = await asyncpg.connect(
        evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    try:
        row = await connection.fetchrow("select * from live_exchange where rollout_id = $1", rollout)
        assert row is not None
        assert (row["prompt_tokens"], row["answer_tokens"], row["cost"]) == (1000, 100, pytest.approx(0.003))
        leases = [f"answer:{one.generation_id}" for one in (event, *others)]
        rows = await connection.fetch("select name from lease where name = any($1)", leases)
        assert [one["name"] for one in rows] == leases[:1], "of what is not judged there are too many to keep"
        for table in await connection.fetch("select tablename from pg_tables where schemaname = 'evaluator'"):
            query = f'select count(*) from "{table["tablename"]}" as t where t::text like $1'
            assert not await connection.fetchval(query, "%Velmar's counter%"), table["tablename"]
    finally:
        await connection.close()


async def test_a_judge_that_needs_a_reference_abstains_and_a_panel_is_asked_without_it(
    evaluator: RunningService, bus: Bus, domain: str, rollout: str
) -> None:
    await published(bus, recorded(domain, rollout))
    [abstained] = await judged(bus, rollout, 1)
    assert (abstained.score, abstained.judge) == (None, "")
    assert "needs a reference answer" in abstained.why
    await published(bus, recorded("house", f"{rollout}-b"))
    [found] = await judged(bus, f"{rollout}-b", 1)
    assert found.score == 80
    assert found.judge.startswith("house/1+")
    apart = v1.Blob(uri="s3://lorafleet/inference/answers/x", sha256="0" * 64, bytes=300_000)
    await published(bus, recorded("strict", f"{rollout}-c", messages=(), answer="", content=apart))
    [too_long] = await judged(bus, f"{rollout}-c", 1)
    assert (too_long.score, too_long.why) == (None, "the answer is too long for the bus")


async def test_a_budget_is_that_of_one_rollout(
    evaluator: RunningService, bus: Bus, judge: JudgeServer, rollout: str
) -> None:
    for _ in range(5):
        await published(bus, recorded("poor", rollout))
    found = await judged(bus, rollout, 5)
    assert [one.score for one in found].count(80) == len(judge.about(rollout)) == 3
    assert {one.why for one in found if one.score is None} == {
        "1 of 1 verdicts are missing: judge 'poor' has spent its 3300 tokens"
    }
    await published(bus, recorded("poor", f"{rollout}-b"))
    [other] = await judged(bus, f"{rollout}-b", 1)
    assert other.score == 80


@pytest.mark.heavy
async def test_an_answer_whose_evaluator_is_killed_while_it_is_judged_is_judged_by_the_next_one_and_counts_once(
    evaluator: RunningService, bus: Bus, judge: JudgeServer, rollout: str
) -> None:
    judge.delay = 1.0
    await published(bus, recorded("strict", rollout))

    async def asked() -> bool:
        return bool(judge.about(rollout))

    await eventually(asked)
    await evaluator.crash()
    judge.delay = 0.0
    await evaluator.start()
    [found] = await judged(bus, rollout, 1)
    assert found.score == 80
    await consumed(bus, v1.GenerationRecorded)
    assert len(await judged(bus, rollout, 1)) == 1
