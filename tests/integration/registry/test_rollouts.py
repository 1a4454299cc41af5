"""Rollouts on the real servers: what answers lead to, what a kill must not lead to, and what humans may do."""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fleet_events import Event, v1
from services.inference.catalogue import Catalogue, CatalogueEvent
from tests.conftest import Mint, RunningService, ServiceEnv
from tests.integration.registry.conftest import UNJUDGED, Get, Upstream, eventually, permit_unjudged
from tests.integration.registry.test_survival import nothing_is_relayed

pytestmark = pytest.mark.integration

STEPS = [0.1, 0.5]
RULES = {"mode": "canary", "steps": STEPS, "minimum_requests": 4, "minimum_seconds": 0}
ENOUGH = 4


@dataclass
class Trial:
    """A rollout under test, and the hand of inference, which reports its answers."""

    registry: RunningService
    upstream: Upstream
    domain: str
    versions: dict[str, dict[str, Any]]

    @property
    def family(self) -> str:
        return f"{self.domain}-lora"

    async def view(self) -> Any:
        reply = await self.registry.client.get(f"/v1/families/{self.family}/rollout")
        assert reply.status_code == 200, reply.text
        return reply.json()["rollout"]

    async def until(self, **wanted: object) -> Any:
        async def reached() -> Any:
            view = await self.view()
            return view if view is not None and {name: view[name] for name in wanted} == wanted else None

        return await eventually(reached)

    async def move(self, verb: str, reason: str = "") -> httpx.Response:
        path = f"/v1/families/{self.family}/rollout/{verb}"
        return await self.registry.client.post(path, json={"reason": reason})

    async def part(self, arm: str, *, shadow: bool = False) -> v1.RolloutPart:
        view = await self.view()
        return v1.RolloutPart(rollout_id=view["rollout_id"], step=view["step"], arm=v1.RolloutArm(arm), shadow=shadow)

    async def answer(self, arm: str, number: int = 1, *, shadow: bool = False) -> list[v1.GenerationCompleted]:
        """So many answers of one version."""
        part, version = await self.part(arm, shadow=shadow), self.versions[arm]
        given = [
            v1.GenerationCompleted(
                generation_id=f"gen-{secrets.token_hex(8)}",
                requested_model=self.family,
                adapter_id=version["adapter_id"],
                domain=self.domain,
                artifact_sha256=version["artifact_sha256"],
                base_model=self.upstream.base_name,
                base_model_revision=self.upstream.revision,
                completion_tokens=5,
                latency_ms=20,
                finish_reason="stop",
                caller="anna",
                rollout=part,
            )
            for _ in range(number)
        ]
        for one in given:
            await self.upstream.publish(one)
        return given

    async def fail(self, number: int) -> None:
        """So many requests of the candidate that got no answer."""
        part = await self.part("candidate")
        for _ in range(number):
            failed = v1.GenerationFailed(
                generation_id=f"gen-{secrets.token_hex(8)}",
                adapter_id=self.versions["candidate"]["adapter_id"],
                domain=self.domain,
                rollout=part,
                failure=v1.Failure.FAULT,
                code="engine_failed",
            )
            await self.upstream.publish(failed)

    async def facts(self) -> list[Event]:
        """What the bus holds about the family."""
        kinds = (
            v1.AdapterRegistered, v1.Approved, v1.Rejected, v1.AdapterActivated, v1.AdapterDeactivated,
            v1.CanaryStarted, v1.CanaryAdvanced, v1.CanaryRolledBack,
        )  # fmt: skip
        return await self.upstream.published(*kinds, domain=self.domain)

    async def split(self) -> tuple[str, str, float]:
        """(who is active, which candidate, its share) as every replica of inference derives it, in whatever order."""
        facts = await self.facts()
        facts += random.sample(facts, len(facts) // 2)
        random.shuffle(facts)
        catalogue = Catalogue()
        for one in facts:
            assert isinstance(one, CatalogueEvent)
            catalogue = catalogue.apply(one)
        active, running = catalogue.active.get(self.family), catalogue.running.get(self.family)
        candidate, share = (running[1].adapter_id, running[0].share) if running else ("", 0.0)
        return active.adapter_id if active else "", candidate, share

    async def truth(self) -> tuple[str, str, float]:
        """The same as the registry has it."""
        reply = await self.registry.client.get("/v1/adapters", params={"domain": self.domain, "active": True})
        active = [one["adapter_id"] for one in reply.json()["adapters"]]
        view = await self.view()
        running = view is not None and view["state"] == "running"
        return (active or [""])[0], view["candidate_id"] if running else "", view["share"] if running else 0.0


def outcomes(view: Any, metric: str = "error_rate") -> tuple[int, int]:
    """Counted for the candidate and for the incumbent."""
    [found] = [one for one in view["evidence"] if one["metric"] == metric]
    return found["candidate_outcomes"], found["incumbent_outcomes"]


@pytest.fixture
async def trial(registry: RunningService, upstream: Upstream, adapters: Get, domain: str) -> Trial:
    """A second version is approved in a domain of canaries, where the first one serves."""
    await permit_unjudged(registry, domain, delivery=RULES)
    versions: dict[str, dict[str, Any]] = {}
    for number, arm in enumerate(("incumbent", "candidate"), start=1):
        await upstream.publish(await upstream.trained(domain, seed=number))

        async def registered(number: int = number) -> Any:
            found = await adapters(domain)
            return found if len(found) == number else None

        versions[arm] = (await eventually(registered))[0]
        approved = await registry.client.post(f"/v1/adapters/{versions[arm]['adapter_id']}/approve", json=UNJUDGED)
        assert approved.status_code == 200, approved.text
    return Trial(registry, upstream, domain, versions)


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
    await trial.upstream.publish(rating.model_copy(update={"rating": 1}))
    await trial.answer("candidate")

    async def counted() -> Any:
        view = await trial.view()
        return outcomes(view) == (2, 0) and outcomes(view, "rating") == (1, 0) and view

    view = await eventually(counted)
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
