"""Who answers while a version is rolled out, and what is told of answers that fail or that nobody sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from fleet_events import Event
from fleet_events.v1 import DeliveryMode, Failure, GenerationCompleted, GenerationFailed, RolloutArm
from inference import events
from inference.events import activated, advanced, approved, deactivated, registered, rejected, rolled_back, started
from inference.surface import MODEL
from inference.test_catalogue import fold
from inference.test_consents import policy
from inference.test_fallbacks import REVISION, V1, V2, chat, serving
from services.inference import router_client
from services.inference.catalogue import CatalogueEvent, Standing
from services.inference.http import api
from services.inference.http.provenance import Routed
from services.inference.recording.consent import Consents
from services.inference.recording.exchange import PendingAnswer
from services.inference.rollouts import place
from services.inference.shadows import Shadows
from services.inference.slots.adapters import Adapters
from services.inference.slots.states import LoadFailed

pytestmark = pytest.mark.unit

BEFORE = (registered(V1, 1), approved(V1, 2), activated(V1, 3), registered(V2, 4), approved(V2, 5))
RUNNING = (*BEFORE, started(V2, V1, 6, 0.5))
V3 = events.adapter("3.0.0", base=REVISION)
LIFE: tuple[CatalogueEvent, ...] = (
    *RUNNING,
    advanced(V2, V1, 7, 0.7),
    rolled_back(V2, V1, 8),
    registered(V3, 9),
    approved(V3, 10),
    started(V3, V1, 11, 0.2),
    deactivated(V1, 12),
    activated(V3, 13),
)


def candidate_of(*known: CatalogueEvent) -> tuple[str, float] | None:
    running = fold(known).running.get("law-lora")
    return (running[1].adapter_id, running[0].share) if running else None


@given(st.permutations(LIFE), st.lists(st.sampled_from(LIFE)), st.integers(0, len(LIFE)))
def test_any_order_and_any_repetition_of_the_events_ends_in_one_split(
    order: list[CatalogueEvent], repeated: list[CatalogueEvent], until: int
) -> None:
    known = [one for one in [*order, *repeated] if LIFE.index(one) < until]
    assert fold(known) == fold(LIFE[:until])
    assert fold(known).running == fold(LIFE[:until]).running


def test_a_rollout_runs_from_its_start_to_its_end() -> None:
    assert candidate_of(*BEFORE) is None
    assert candidate_of(*LIFE[:6]) == (V2.adapter_id, 0.5)
    assert candidate_of(*LIFE[:7]) == (V2.adapter_id, 0.7)
    assert candidate_of(*LIFE[:8]) is None
    assert candidate_of(*LIFE[:11]) == (V3.adapter_id, 0.2)
    assert candidate_of(*LIFE) is None


@pytest.mark.parametrize(
    "ends", [deactivated(V1, 7), rejected(V1, 7), rejected(V2, 7), activated(V2, 7), activated(V3, 7)]
)
def test_a_rollout_ends_with_what_happens_to_its_versions_before_its_own_end_arrives(ends: CatalogueEvent) -> None:
    assert candidate_of(*RUNNING, ends) is None


def test_a_candidate_keeps_to_itself_while_it_is_rolled_out() -> None:
    catalogue = fold(RUNNING)
    assert catalogue.active == {"law-lora": V1}
    assert catalogue.standing(V2.adapter_id) is Standing.APPROVED


CALLERS = [f"caller-{number}" for number in range(4000)]


def test_a_step_only_adds_callers_and_gives_the_candidate_its_share_of_them() -> None:
    def given_to_candidate(share: float) -> set[str]:
        catalogue = fold([*BEFORE, started(V2, V1, 6, share)])
        assigned = {caller: catalogue.assign(V1, caller) for caller in CALLERS}
        return {caller for caller, found in assigned.items() if found and found.adapter == V2}

    one, five, quarter = (given_to_candidate(share) for share in (0.01, 0.05, 0.25))
    assert one < five < quarter
    for share, found in ((0.01, one), (0.05, five), (0.25, quarter)):
        assert len(found) / len(CALLERS) == pytest.approx(share, abs=0.02)


def test_every_part_in_a_rollout_names_the_share_that_the_judge_scores() -> None:
    begun = started(V2, V1, 6, 0.5)
    for share in (0.0, 0.2):
        rollout = begun.rollout.model_copy(update={"judge_share": share})
        catalogue = fold([*BEFORE, begun.model_copy(update={"rollout": rollout})])
        assert catalogue.assign(V1, "anna").part.judge_share == share  # type: ignore[union-attr]


def test_another_rollout_begins_with_other_callers() -> None:
    first = {one for one in CALLERS if place("law-lora", "v2.7", one) < 0.1}
    second = {one for one in CALLERS if place("law-lora", "v3.12", one) < 0.1}
    assert len(first & second) < len(first) / 2


@dataclass
class Told:
    """What is published."""

    events: list[Event] = field(default_factory=list)

    def say(self, event: Event, entity: str) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.events if isinstance(one, kind)]


@dataclass
class Served:
    client: httpx.AsyncClient
    adapters: Adapters
    loader: Any
    app: FastAPI
    told: Told

    async def ask(self, model: str = "law-lora", user: str = "u1", **more: Any) -> Any:
        return await self.client.post("/v1/chat/completions", json=chat(model, user=user, **more))


@asynccontextmanager
async def rolled_out(*known: CatalogueEvent, **settings: Any) -> AsyncIterator[Served]:
    told = Told()
    async with serving(*known, publisher=told, **settings) as (client, adapters, loader, app):
        yield Served(client, adapters, loader, app, told)


def user_of(arm: RolloutArm, share: float = 0.5) -> str:
    """A user whom the split gives this version."""
    rollout_id = RUNNING[-1].rollout.rollout_id
    within = arm is RolloutArm.CANDIDATE
    return next(one for one in CALLERS if (place("law-lora", rollout_id, f"user\0{one}") < share) == within)


@pytest.mark.requirement("AM-3.1")
@pytest.mark.parametrize(("arm", "version"), [(RolloutArm.CANDIDATE, V2), (RolloutArm.INCUMBENT, V1)])
async def test_a_family_s_request_is_answered_by_the_version_that_its_user_is_given(
    arm: RolloutArm, version: Any
) -> None:
    async with rolled_out(*RUNNING) as served:
        for field_ in ("user", "safety_identifier"):
            reply = await served.client.post("/v1/chat/completions", json=chat("law-lora", **{field_: user_of(arm)}))
            told = reply.json()["lorafleet"]
            assert told["adapter_id"] == version.adapter_id
            assert told["rollout"] == {"rollout_id": RUNNING[-1].rollout.rollout_id, "step": 0, "arm": arm.value}
            assert told["fallback"] is None
        [first, _] = served.told.of(GenerationCompleted)
        assert (first.adapter_id, first.rollout.arm, first.rollout.shadow) == (version.adapter_id, arm, False)


async def test_exact_versions_have_no_part_in_a_rollout() -> None:
    async with rolled_out(*RUNNING) as served:
        for name in (V1.adapter_id, "law-lora@1.0.0", f"{V1.adapter_id}:1.0"):
            told = (await served.ask(name, user_of(RolloutArm.CANDIDATE))).json()["lorafleet"]
            assert (told["adapter_id"], told["rollout"]) == (V1.adapter_id, None)
        assert (await served.ask(V2.adapter_id)).status_code == 404, "a candidate is not to be asked for by name"
        embedded = await served.client.post("/v1/embeddings", json={"model": "law-lora", "input": "a"})
        assert embedded.json()["lorafleet"]["adapter_id"] == V1.adapter_id
        assert all(one.rollout is None for one in served.told.of(GenerationCompleted))


async def test_the_incumbent_answers_where_the_candidate_cannot_be_loaded_and_the_failure_counts() -> None:
    async with rolled_out(*RUNNING) as served:
        served.loader.failures[V2.adapter_id] = LoadFailed("adapter_without_effect", "it changes nothing")
        reply = await served.ask(user=user_of(RolloutArm.CANDIDATE))
        assert reply.status_code == 200
        told = reply.json()["lorafleet"]
        assert (told["adapter_id"], told["rollout"]) == (V1.adapter_id, None)
        assert told["fallback"]["reason"] == "adapter_without_effect"
        [failed] = served.told.of(GenerationFailed)
        assert (failed.adapter_id, failed.failure, failed.code) == (
            V2.adapter_id,
            Failure.REFUSED,
            "adapter_without_effect",
        )
        assert failed.rollout.arm is RolloutArm.CANDIDATE
        [answered] = served.told.of(GenerationCompleted)
        assert answered.rollout is None, "an answer in the candidate's place is no outcome of the incumbent"


@pytest.mark.parametrize("arm", list(RolloutArm))
async def test_an_answer_that_breaks_counts_against_its_version(arm: RolloutArm) -> None:
    async with rolled_out(*RUNNING) as served:
        hosted = served.app.dependency_overrides[api._parts]().hosting.all[0]
        hosted.backend.completion = None  # the back end has a fault
        with pytest.raises(TypeError):
            await served.ask(user=user_of(arm))
        [failed] = served.told.of(GenerationFailed)
        assert (failed.rollout.arm, failed.failure, failed.code) == (arm, Failure.FAULT, "internal_error")


async def test_a_failure_of_a_request_without_a_rollout_is_not_published() -> None:
    async with rolled_out(*BEFORE) as served:
        served.loader.failures[V1.adapter_id] = LoadFailed("adapter_without_effect", "it changes nothing")
        assert (await served.ask()).status_code == 422
        assert served.told.of(GenerationFailed) == []


SHADOWED = (*BEFORE, started(V2, V1, 6, 0.5, mode=DeliveryMode.SHADOW))


async def settled(served: Served, number: int) -> list[GenerationCompleted]:
    async with asyncio.timeout(5):
        while len(found := served.told.of(GenerationCompleted)) < number:
            await asyncio.sleep(0)
    return found


@asynccontextmanager
async def shadowed(limit: int = 4, **settings: Any) -> AsyncIterator[tuple[Served, Shadows]]:
    shadows = Shadows(limit)
    async with rolled_out(*SHADOWED, shadows=shadows, **settings) as served:
        generator = served.app.dependency_overrides[api._parts]().generator
        task = asyncio.create_task(shadows.run(generator))
        try:
            yield served, shadows
        finally:
            task.cancel()


async def test_a_shadow_is_computed_beside_and_never_served() -> None:
    async with shadowed() as (served, _):
        reply = await served.ask(user=user_of(RolloutArm.CANDIDATE), n=2)
        told = reply.json()["lorafleet"]
        assert (told["adapter_id"], told["rollout"]["arm"]) == (V1.adapter_id, "incumbent")
        found = await settled(served, 3)
        [shadow] = [one for one in found if one.rollout and one.rollout.shadow]
        assert (shadow.adapter_id, shadow.rollout.arm) == (V2.adapter_id, RolloutArm.CANDIDATE)
        assert shadow.generation_id not in reply.text
        assert {one.adapter_id for one in found if one is not shadow} == {V1.adapter_id}


@pytest.mark.parametrize(("mode", "recorded"), [("all", 1), ("rated", 1), ("none", 0), (None, 0)])
async def test_a_shadow_s_answer_is_never_recorded_whatever_the_policy_permits_of_the_served_one(
    mode: str | None, recorded: int
) -> None:
    taken: list[PendingAnswer] = []
    async with shadowed(recorder=SimpleNamespace(take=taken.append)) as (served, _):
        permitted = Consents() if mode is None else Consents().apply(policy("law", mode))
        served.app.dependency_overrides[api._parts]().generator.projection.consents = permitted
        await served.ask(user=user_of(RolloutArm.CANDIDATE))
        found = await settled(served, 2)
        assert [one.rollout.shadow for one in found if one.rollout] == [False, True]
        assert [one.event.adapter_id for one in taken] == [V1.adapter_id] * recorded
        assert [one.event.rollout and one.event.rollout.arm for one in taken] == [RolloutArm.INCUMBENT] * recorded


async def test_requests_beyond_the_share_have_no_shadow() -> None:
    async with shadowed() as (served, shadows):
        told = (await served.ask(user=user_of(RolloutArm.INCUMBENT))).json()["lorafleet"]
        assert told["rollout"] is None
        assert shadows._waiting.empty()


async def test_a_shadow_gives_way_to_requests_that_wait_and_is_bounded() -> None:
    async with shadowed(limit=1) as (served, shadows):
        backend = served.app.dependency_overrides[api._parts]().hosting.all[0].backend
        backend.load = (2, 1)
        for _ in range(3):
            assert (await served.ask(user=user_of(RolloutArm.CANDIDATE))).status_code == 200
        async with asyncio.timeout(5):
            while not shadows._waiting.empty():
                await asyncio.sleep(0)
        backend.load = (0, 0)
        await served.ask(user=user_of(RolloutArm.CANDIDATE))
        found = await settled(served, 5)
        assert [one.rollout.shadow for one in found] == [False] * 4 + [True]


async def test_a_shadow_that_fails_is_counted_and_the_next_one_is_computed() -> None:
    async with shadowed() as (served, _):
        served.loader.failures[V2.adapter_id] = LoadFailed("adapter_without_effect", "it changes nothing")
        assert (await served.ask(user=user_of(RolloutArm.CANDIDATE))).status_code == 200
        async with asyncio.timeout(5):
            while not (failed := served.told.of(GenerationFailed)):
                await asyncio.sleep(0)
        assert failed[0].rollout.shadow
        assert (await served.ask(user=user_of(RolloutArm.CANDIDATE))).status_code == 200


async def test_the_base_model_has_no_part_in_a_rollout() -> None:
    async with rolled_out(*RUNNING) as served:
        assert (await served.ask(MODEL)).json()["lorafleet"]["rollout"] is None


async def test_the_version_that_auto_chooses_is_split_like_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(*_: object) -> object:
        return None

    def chosen(*_: object) -> tuple[Any, Routed]:
        return V1, Routed(matched=True, reason="near")

    monkeypatch.setattr(router_client, "ask", ask)
    monkeypatch.setattr(router_client, "choose", chosen)
    async with rolled_out(*RUNNING) as served:
        told = (await served.ask("auto", user_of(RolloutArm.CANDIDATE))).json()["lorafleet"]
        assert (told["adapter_id"], told["routed"]["matched"]) == (V2.adapter_id, True)
