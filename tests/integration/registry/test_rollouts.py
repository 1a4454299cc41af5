"""Rollouts on the real servers: what answers lead to, what a kill must not lead to, and what humans may do."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from fleet_events import v1
from tests.integration.registry.conftest import eventually, permit_unjudged
from tests.integration.registry.rolling import ENOUGH, RULES, STEPS, Trial, outcomes
from tests.integration.registry.rolling import trial as trial

pytestmark = pytest.mark.integration


@pytest.mark.requirement("AM-3.1")
async def test_a_canary_that_is_not_worse_takes_over_step_by_step(trial: Trial) -> None:
    one, other = (trial.versions[arm]["adapter_id"] for arm in ("incumbent", "candidate"))
    assert await trial.truth() == (one, other, 0.1)
    for step in range(len(STEPS)):
        await trial.until(step=step, state="running")
        await trial.answer("incumbent", ENOUGH)
        await trial.answer("candidate", ENOUGH)
    await trial.until(state="promoted")
    assert await trial.truth() == (other, "", 0.0)

    async def published() -> bool:
        return await trial.split() == (other, "", 0.0)

    assert await eventually(published)
    facts = await trial.facts()
    revisions = [one.revision for one in facts]  # type: ignore[attr-defined]
    assert revisions == list(range(1, len(facts) + 1))
    kinds = [type(one) for one in facts]
    rolled = kinds[kinds.index(v1.CanaryStarted) :]
    assert rolled == [v1.CanaryStarted, v1.CanaryAdvanced, v1.AdapterDeactivated, v1.AdapterActivated]
    [advanced] = [one for one in facts if isinstance(one, v1.CanaryAdvanced)]
    assert advanced.rollout.share == STEPS[1]
    found = next(one for one in advanced.evidence if one.metric is v1.RolloutMetric.ERROR_RATE)
    assert found.candidate_outcomes == found.incumbent_outcomes == ENOUGH
    assert found.candidate == 0
    assert found.log_evidence < found.line


@pytest.mark.requirement("LA-3.4")
async def test_a_candidate_that_fails_goes_back_by_itself_and_stays_approved(trial: Trial) -> None:
    await trial.answer("incumbent", 40)
    await trial.fail(20)
    view = await trial.until(state="rolled_back")
    assert "error_rate" in view["reason"]
    candidate = trial.versions["candidate"]["adapter_id"]
    details = (await trial.registry.client.get(f"/v1/adapters/{candidate}")).json()
    assert (details["status"], details["active"]) == ("approved", False)
    trail = (await trial.registry.client.get(f"/v1/adapters/{candidate}/audit")).json()["entries"]
    assert trail[-1]["action"] == "rollout_rolled_back"
    assert trail[-1]["actor"] == "automated-pipeline"

    async def announced() -> Any:
        return [one for one in await trial.facts() if isinstance(one, v1.CanaryRolledBack)]

    [back] = await eventually(announced)
    worst = next(one for one in back.evidence if one.metric is v1.RolloutMetric.ERROR_RATE)
    assert worst.log_evidence >= worst.line
    assert await trial.split() == await trial.truth()


async def test_an_answer_that_is_delivered_again_counts_once(trial: Trial) -> None:
    [answer] = await trial.answer("candidate")
    for _ in range(2):
        await trial.upstream.publish(answer, id="the-same-event")
    rating = v1.FeedbackRecorded(
        generation_id=answer.generation_id,
        adapter_id=answer.adapter_id,
        domain=trial.domain,
        rating=4,
        by="anna",
    )
    await trial.upstream.publish(rating)

    async def counted(answers: int) -> Any:
        view = await trial.view()
        return outcomes(view) == (answers, 0) and outcomes(view, "rating") == (1, 0) and view

    await eventually(lambda: counted(1))  # of ratings that come before their answer, a person's newest would count
    await trial.upstream.publish(rating.model_copy(update={"rating": 1}))
    await trial.answer("candidate")
    view = await eventually(lambda: counted(2))
    assert next(one for one in view["evidence"] if one["metric"] == "rating")["candidate"] == 4


async def test_a_rating_that_comes_before_its_answer_counts_with_it(trial: Trial) -> None:
    part, version = await trial.part("candidate"), trial.versions["candidate"]
    rating = v1.FeedbackRecorded(
        generation_id="gen-late-" + secrets.token_hex(4),
        adapter_id=version["adapter_id"],
        domain=trial.domain,
        rating=2,
        by="anna",
    )
    await trial.upstream.publish(rating)

    async def rated() -> bool:
        details = (await trial.registry.client.get(f"/v1/adapters/{version['adapter_id']}")).json()
        return bool(details["feedback"]["count"])

    await eventually(rated)
    assert outcomes(await trial.view(), "rating") == (0, 0)
    answer = v1.GenerationCompleted(
        generation_id=rating.generation_id,
        adapter_id=version["adapter_id"],
        domain=trial.domain,
        artifact_sha256=version["artifact_sha256"],
        base_model=trial.upstream.base_name,
        completion_tokens=3,
        finish_reason="stop",
        rollout=part,
    )
    await trial.upstream.publish(answer)

    async def counted() -> bool:
        return outcomes(await trial.view(), "rating") == (1, 0)

    assert await eventually(counted)


async def test_a_choice_between_answers_of_the_two_versions_counts_once(trial: Trial) -> None:
    rules = RULES | {"minimum_requests": 1000, "metrics": {"preference": 0}}
    assert (await trial.move("roll-back", "start again with another metric")).status_code == 200
    await permit_unjudged(trial.registry, trial.domain, delivery=rules)
    begun = await trial.registry.client.post(f"/v1/families/{trial.family}/rollout", json={})
    assert begun.status_code == 201, begun.text
    [mine], [theirs] = await trial.answer("candidate"), await trial.answer("incumbent")

    async def known() -> bool:
        path = f"/v1/answers/{theirs.generation_id}/provenance"
        return (await trial.registry.client.get(path)).status_code == 200

    await eventually(known)
    choice = v1.FeedbackRecorded(
        generation_id=mine.generation_id,
        adapter_id=mine.adapter_id,
        domain=trial.domain,
        preferred_over=theirs.generation_id,
        by="anna",
    )
    await trial.upstream.publish(choice)
    await trial.upstream.publish(choice)
    opposite = {"generation_id": theirs.generation_id, "adapter_id": theirs.adapter_id, "by": "ben"}
    await trial.upstream.publish(choice.model_copy(update=opposite | {"preferred_over": mine.generation_id}))

    async def counted() -> Any:
        [found] = (await trial.view())["evidence"]
        return found if found["candidate_outcomes"] == 2 else None

    assert (await eventually(counted))["candidate"] == 0.5


async def test_an_answer_that_nobody_saw_is_no_use_of_its_version(trial: Trial) -> None:
    await trial.answer("candidate", 3, shadow=True)
    await trial.answer("candidate", 1)

    async def counted() -> bool:
        return outcomes(await trial.view()) == (4, 0)

    assert await eventually(counted)
    candidate = trial.versions["candidate"]["adapter_id"]
    details = (await trial.registry.client.get(f"/v1/adapters/{candidate}")).json()
    assert details["usage"]["answers"] == 1


async def test_an_answer_of_another_version_than_its_part_names_is_refused(trial: Trial) -> None:
    part = await trial.part("candidate")
    [answer] = await trial.answer("incumbent")
    swapped = answer.model_copy(update={"generation_id": "gen-swapped", "rollout": part})
    await trial.upstream.publish(swapped)

    async def refused() -> bool:
        return any(part.rollout_id in reason for reason in await trial.upstream.dead_reasons())

    assert await eventually(refused)
    assert outcomes(await trial.view()) == (0, 1)
