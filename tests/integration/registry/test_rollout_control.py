"""People hold, widen and end rollouts; kills of the registry leave one truth."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Mint, RunningService, ServiceEnv
from tests.integration.registry.conftest import eventually, permit_unjudged
from tests.integration.registry.rolling import ENOUGH, RULES, STEPS, Trial, outcomes
from tests.integration.registry.rolling import trial as trial
from tests.integration.registry.test_survival import nothing_is_relayed

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("ending", ["advanced", "rolled_back"])
async def test_a_registry_killed_between_its_decision_and_the_bus_leaves_one_truth(
    trial: Trial, ending: str, service_env: ServiceEnv
) -> None:
    before = await trial.truth()
    await trial.registry.crash()
    async with nothing_is_relayed(service_env):
        await trial.registry.start()
        if ending == "advanced":
            await trial.answer("incumbent", ENOUGH)
            await trial.answer("candidate", ENOUGH)
            await trial.until(step=1)
        else:
            await trial.answer("incumbent", 40)
            await trial.fail(20)
            await trial.until(state="rolled_back")
        assert await trial.split() == before, "nothing is published, so every replica still has the step before"
        await trial.registry.crash()
        assert await trial.split() == before, "a dead registry changes nothing for those who answer"
    await trial.registry.start()

    async def one_truth() -> bool:
        return await trial.split() == await trial.truth() != before

    assert await eventually(one_truth)
    kinds = [type(one) for one in await trial.facts()]
    assert len(kinds) == len(set(kinds)) + 2, (
        "two versions were registered and approved; nothing else is published twice"
    )


@pytest.mark.heavy
async def test_no_answer_is_lost_or_counted_twice_by_a_kill_while_they_are_counted(trial: Trial) -> None:
    rules = RULES | {"minimum_requests": 1000}
    assert (await trial.move("roll-back", "start again with more")).status_code == 200
    await permit_unjudged(trial.registry, trial.domain, delivery=rules)
    body = {"candidate": trial.versions["candidate"]["adapter_id"]}
    begun = await trial.registry.client.post(f"/v1/families/{trial.family}/rollout", json=body)
    assert begun.status_code == 201, begun.text
    first = asyncio.create_task(trial.answer("candidate", 60))

    async def some() -> bool:
        return outcomes(await trial.view())[0] >= 5

    await eventually(some)
    await trial.registry.crash()
    await first
    await trial.registry.start()

    async def all_counted() -> bool:
        return outcomes(await trial.view())[0] >= 60

    await eventually(all_counted)
    await trial.answer("incumbent")

    async def the_last_one() -> bool:
        return outcomes(await trial.view())[1] == 1

    await eventually(the_last_one)
    assert outcomes(await trial.view()) == (60, 1)


async def test_a_human_pauses_resumes_widens_and_promotes_a_rollout(trial: Trial) -> None:
    paused = (await trial.move("pause", "look at the answers")).json()["rollout"]
    assert paused["paused"]
    await trial.answer("incumbent", ENOUGH)
    await trial.answer("candidate", ENOUGH)

    async def counted() -> bool:
        return outcomes(await trial.view()) == (ENOUGH, ENOUGH)

    await eventually(counted)
    assert (await trial.view())["step"] == 0
    resumed = (await trial.move("resume")).json()["rollout"]
    assert not resumed["paused"]
    assert (await trial.move("advance", "enough seen")).json()["rollout"]["share"] == STEPS[1]
    assert (await trial.move("advance")).status_code == 409
    promoted = await trial.move("promote", "convincing")
    assert promoted.json()["rollout"]["state"] == "promoted"
    assert (await trial.move("pause")).status_code == 409
    candidate = trial.versions["candidate"]["adapter_id"]
    assert (await trial.truth())[0] == candidate


async def test_a_step_that_nothing_decides_ends_with_its_time_though_no_answer_comes(trial: Trial) -> None:
    assert (await trial.move("roll-back", "start again with little time")).status_code == 200
    await permit_unjudged(trial.registry, trial.domain, delivery=RULES | {"longest_seconds": 1})
    begun = await trial.registry.client.post(f"/v1/families/{trial.family}/rollout", json={"mode": "ab"})
    assert begun.status_code == 201, begun.text
    view = await trial.until(state="rolled_back")
    assert "was not decided within 1 s" in view["reason"]


async def test_a_roll_back_by_hand_needs_a_reason_and_ends_the_rollout(trial: Trial) -> None:
    refused = await trial.move("roll-back")
    assert (refused.status_code, refused.json()["field"]) == (422, "reason")
    ended = await trial.move("roll-back", "complaints")
    assert ended.json()["rollout"]["state"] == "rolled_back"
    assert (await trial.truth())[1] == ""


@pytest.mark.requirement("AM-3.2")
async def test_a_candidate_that_is_rejected_ends_its_rollout(trial: Trial) -> None:
    candidate = trial.versions["candidate"]["adapter_id"]
    reply = await trial.registry.client.post(f"/v1/adapters/{candidate}/reject", json={"reason": "harmful"})
    assert reply.status_code in (200, 202)
    view = await trial.view()
    assert (view["state"], view["reason"]) == ("rolled_back", "harmful")


async def test_a_rollout_of_a_domain_beyond_the_token_s_does_not_exist(trial: Trial, mint: Mint) -> None:
    for domains, expected in ((["elsewhere"], 404), ([trial.domain], 200)):
        headers = {"Authorization": f"Bearer {mint(scopes=['adapters:read', 'adapters:write'], domains=domains)}"}
        path = f"/v1/families/{trial.family}/rollout"
        assert (await trial.registry.client.get(path, headers=headers)).status_code == expected
        moved = await trial.registry.client.post(f"{path}/pause", json={}, headers=headers)
        assert moved.status_code == expected
    read = {"Authorization": f"Bearer {mint(scopes=['adapters:read'], domains=[trial.domain])}"}
    refused = await trial.registry.client.post(f"/v1/families/{trial.family}/rollout/resume", json={}, headers=read)
    assert refused.status_code == 403


async def test_a_policy_whose_steps_do_not_grow_is_refused_by_name(registry: RunningService, domain: str) -> None:
    reply = await registry.client.put(f"/v1/policies/{domain}", json={"delivery": {"steps": [0.5, 0.1]}})
    assert (reply.status_code, reply.json()["field"]) == (422, "delivery.steps")
    kept = await registry.client.put(f"/v1/policies/{domain}", json={"delivery": {"mode": "ab", "share": 0.3}})
    assert kept.json()["delivery"]["share"] == 0.3
    read = await registry.client.get(f"/v1/policies/{domain}")
    assert read.json()["delivery"] == kept.json()["delivery"]
