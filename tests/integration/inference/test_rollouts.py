"""Rollouts on real servers: two replicas agree, a restart changes nothing, and what fails or is not shown is published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fleet_events import v1
from fleet_events.v1 import DeliveryMode, RolloutArm
from tests.conftest import RunningService, RunService
from tests.integration.inference.conftest import Made, Registry, answered, chat, eventually, text_of

pytestmark = pytest.mark.integration

USERS = [f"user-{number}" for number in range(12)]


@pytest.fixture(scope="module")
async def second(
    run_service: RunService, settings_of_inference: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    """Another replica, with nothing of the first one's."""
    settings = settings_of_inference | {
        "LORAFLEET_CACHE_DIR": str(tmp_path_factory.mktemp("cache-second")),
        "LORAFLEET_REPLICA": "the-second-replica",
    }
    async with run_service("inference", **settings) as running:
        yield running


@dataclass
class Trial:
    """Two versions of a family, the second one approved, and the registry's hand."""

    registry: Registry
    incumbent: v1.Adapter
    candidate: v1.Adapter

    def card(self, share: float, mode: DeliveryMode = DeliveryMode.CANARY, step: int = 0) -> v1.Rollout:
        return v1.Rollout(
            rollout_id=f"{self.candidate.adapter_id}.6",
            mode=mode,
            candidate_id=self.candidate.adapter_id,
            incumbent_id=self.incumbent.adapter_id,
            step=step,
            share=share,
        )

    async def start(self, share: float, mode: DeliveryMode = DeliveryMode.CANARY) -> None:
        await self._say(v1.CanaryStarted, self.card(share, mode))

    async def advance(self, share: float) -> None:
        await self._say(v1.CanaryAdvanced, self.card(share, step=1))

    async def roll_back(self) -> None:
        await self._say(v1.CanaryRolledBack, self.card(0.5))

    async def _say(self, kind: Any, card: v1.Rollout) -> None:
        family, domain = self.incumbent.family, self.incumbent.domain
        revision = self.registry.next(family)
        await self.registry.publish(kind(family=family, domain=domain, revision=revision, rollout=card, by="policy"))

    async def of(self, service: RunningService, user: str) -> dict[str, Any]:
        return await answered(service.client, self.incumbent.family, user=user)

    async def arms(self, service: RunningService) -> dict[str, str | None]:
        """User → the arm that this replica gives them, None where no rollout runs."""
        bodies = await asyncio.gather(*(self.of(service, user) for user in USERS))
        found = {}
        for user, body in zip(USERS, bodies, strict=True):
            part = body["lorafleet"]["rollout"]
            found[user] = part["arm"] if part else None
        return found

    async def published(self, kind: type[Any]) -> list[Any]:
        return [one for one in await self.registry.published(kind) if one.domain == self.incumbent.domain]


@pytest.fixture
async def trial(registry: Registry, make_adapter: Callable[..., Made], domain: str) -> Trial:
    one = await registry.describe(make_adapter(seed=301), domain)
    other = await registry.describe(make_adapter(seed=302), domain, version="1.1.0")
    return await prepared(registry, one, other)


async def prepared(registry: Registry, one: v1.Adapter, other: v1.Adapter) -> Trial:
    for adapter in (one, other):
        await registry.register(adapter)
        approved = v1.Approved(
            adapter_id=adapter.adapter_id,
            family=adapter.family,
            domain=adapter.domain,
            artifact_sha256=adapter.artifact.blob.sha256,
            revision=registry.next(adapter.family),
            by="policy",
        )
        await registry.publish(approved)
        if adapter is one:
            await registry.activate(adapter)
    return Trial(registry, one, other)


@pytest.mark.requirement("AM-3.1")
async def test_two_replicas_give_a_user_one_version_and_a_restart_builds_the_same_split(
    inference: RunningService,
    second: RunningService,
    trial: Trial,
    make_adapter: Callable[..., Made],
    expected: Callable[..., str],
) -> None:
    await trial.start(0.5)

    async def begun(service: RunningService) -> bool:
        return None not in (await trial.arms(service)).values()

    await eventually(lambda: begun(inference))
    await eventually(lambda: begun(second))
    arms = await trial.arms(inference)
    assert set(arms.values()) == set(RolloutArm)
    assert await trial.arms(second) == arms
    for user in USERS[:4]:
        body = await trial.of(second, user)
        seed = 302 if arms[user] == RolloutArm.CANDIDATE else 301
        assert text_of(body) == expected(make_adapter(seed=seed))

    await second.kill()
    await second.wait_ready()
    assert await trial.arms(second) == arms

    async def wider(service: RunningService) -> bool:
        now = await trial.arms(service)
        candidates = {user for user, arm in now.items() if arm == RolloutArm.CANDIDATE}
        assert candidates >= {user for user, arm in arms.items() if arm == RolloutArm.CANDIDATE}
        return len(candidates) == len(USERS)

    await trial.advance(1.0)
    for service in (inference, second):
        await eventually(lambda service=service: wider(service))
    await trial.registry.activate(trial.candidate)

    async def over(service: RunningService) -> bool:
        body = await trial.of(service, USERS[0])
        told = body["lorafleet"]
        return told["rollout"] is None and told["adapter_id"] == trial.candidate.adapter_id

    for service in (inference, second):
        await eventually(lambda service=service: over(service))

    async def all_told() -> bool:
        found = await trial.published(v1.GenerationCompleted)
        given = {one.rollout.arm for one in found if one.rollout}
        return given == set(RolloutArm) and {one.replica for one in found} >= {"the-second-replica"}

    assert await eventually(all_told)


async def test_a_candidate_that_cannot_serve_costs_nobody_an_answer_and_is_reported(
    inference: RunningService, registry: Registry, make_adapter: Callable[..., Made], domain: str
) -> None:
    one = await registry.describe(make_adapter(seed=303), domain)
    broken = await registry.blobs.put("artifacts", f"no adapter {domain}".encode())
    other = await registry.describe(make_adapter(seed=303), domain, version="1.1.0", blob=broken)
    trial = await prepared(registry, one, other)
    await trial.start(0.999999)

    async def instead() -> Any:
        body = await trial.of(inference, USERS[0])
        return body if body["lorafleet"]["fallback"] else None

    told = (await eventually(instead))["lorafleet"]
    assert (told["adapter_id"], told["rollout"]) == (one.adapter_id, None)

    async def reported() -> Any:
        return await trial.published(v1.GenerationFailed)

    failed = (await eventually(reported))[0]
    assert (failed.adapter_id, failed.failure, failed.rollout.arm) == (
        other.adapter_id,
        v1.Failure.REFUSED,
        RolloutArm.CANDIDATE,
    )
    assert failed.code == told["fallback"]["reason"]


async def test_a_shadow_s_answer_is_published_and_never_served(inference: RunningService, trial: Trial) -> None:
    await trial.start(0.5, DeliveryMode.SHADOW)

    async def begun() -> bool:
        return RolloutArm.INCUMBENT in (await trial.arms(inference)).values()

    await eventually(begun)

    async def computed() -> Any:
        await trial.arms(inference)
        return [one for one in await trial.published(v1.GenerationCompleted) if one.rollout and one.rollout.shadow]

    shadow = (await eventually(computed))[0]
    assert (shadow.adapter_id, shadow.rollout.arm) == (trial.candidate.adapter_id, RolloutArm.CANDIDATE)
    assert shadow.completion_tokens > 0
    assert RolloutArm.CANDIDATE not in (await trial.arms(inference)).values()
    await trial.roll_back()

    async def ended() -> bool:
        return set((await trial.arms(inference)).values()) == {None}

    assert await eventually(ended)
    refused = await chat(inference.client, trial.candidate.adapter_id)
    assert refused.status_code == 404
