"""A rollout between two versions of a family, and the answers, ratings and choices that it counts."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fleet_events import Event, v1
from services.inference.catalogue import Catalogue, CatalogueEvent
from tests.conftest import RunningService
from tests.integration.registry.conftest import UNJUDGED, Get, Upstream, eventually, permit_unjudged

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


async def trial_of(registry: RunningService, upstream: Upstream, adapters: Get, domain: str, **policy: object) -> Trial:
    """A second version is approved in a domain of this policy, where the first one serves."""
    await permit_unjudged(registry, domain, **policy)
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


@pytest.fixture
async def trial(registry: RunningService, upstream: Upstream, adapters: Get, domain: str) -> Trial:
    """Under the rules of canaries."""
    return await trial_of(registry, upstream, adapters, domain, delivery=RULES)
