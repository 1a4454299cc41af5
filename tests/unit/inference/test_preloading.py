"""What is brought in before it is asked for, and with which urgency."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fleet_kit.auth import Caller
from inference.events import BASE_REVISION, activated, adapter
from inference.scripted import ScriptedLoader, running, settle
from services.inference.base_models import BaseModels, ServedBaseModel
from services.inference.catalogue import Catalogue
from services.inference.errors import NotFound
from services.inference.policies.policy import ActivationPolicy
from services.inference.policies.predictor import Predictor
from services.inference.policies.preloading import WORKFLOW_AGAIN, Preloading
from services.inference.resolution import Base
from services.inference.slots.adapters import Adapters
from services.inference.slots.allocation import Priority, Rules
from services.inference.slots.states import Cached, Loaded

LAW, TAX, HR, SHOP = (adapter(domain=domain) for domain in ("law", "tax", "hr", "shop"))
ACTIVE = Catalogue()
for one in (LAW, TAX, HR, SHOP):
    ACTIVE = ACTIVE.apply(activated(one, 1))
WORKFLOWS = {"audit": ["law-lora", TAX.adapter_id, "ghost-lora"]}


def caller(subject: str = "ann", *domains: str) -> Caller:
    return Caller(subject=subject, scopes=frozenset({"generate"}), domains=frozenset(domains or {"*"}))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def preloading(
    slots: int = 4, policy: ActivationPolicy | None = None, rules: Rules | None = None
) -> AsyncIterator[tuple[Preloading, Adapters, Clock]]:
    nothing: Any = None
    async with running(ScriptedLoader(), slots=slots, rules=rules) as adapters:
        hosting = BaseModels([ServedBaseModel(Base("tiny", BASE_REVISION), nothing, adapters, nothing, nothing)])
        clock = Clock()
        yield Preloading(hosting, policy or ActivationPolicy(), Predictor(), WORKFLOWS, clock), adapters, clock


def loaded(adapters: Adapters) -> set[str]:
    return {one for one, state in adapters.states.items() if isinstance(state, Loaded)}


@pytest.mark.requirement("AS-10.1")
def test_how_urgently_an_adapter_that_became_active_is_brought_in() -> None:
    lazy, active = ActivationPolicy("lazy", hot_reload=False), ActivationPolicy("active", hot_reload=False)
    assert lazy.priority(LAW, family_in_slot=True) is None
    assert active.priority(LAW, family_in_slot=True) is Priority.ACTIVATION
    hot, kept = ActivationPolicy("lazy", hot_reload=True), ActivationPolicy("lazy", hot_reload=False, redundancy=True)
    assert hot.priority(LAW, family_in_slot=True) is Priority.WORKFLOW
    assert hot.priority(LAW, family_in_slot=False) is None
    assert kept.priority(LAW, family_in_slot=False) is Priority.DISK
    for pin in (LAW.adapter_id, LAW.family):
        assert ActivationPolicy("lazy", pinned=frozenset({pin})).priority(LAW, family_in_slot=False) is Priority.PINNED


@pytest.mark.requirement("AS-5.2")
async def test_a_workflows_adapters_are_loaded_when_it_is_first_named_and_again_after_a_while() -> None:
    async with preloading() as (preloads, adapters, clock):
        preloads.requested(caller(), "audit", [], ACTIVE)
        await settle()
        assert loaded(adapters) == {LAW.adapter_id, TAX.adapter_id}
        await adapters.evict("evicted by hand")
        preloads.requested(caller(), "audit", [], ACTIVE)
        await settle()
        assert not loaded(adapters)
        clock.now += WORKFLOW_AGAIN
        preloads.requested(caller(), "audit", [], ACTIVE)
        await settle()
        assert loaded(adapters) == {LAW.adapter_id, TAX.adapter_id}


async def test_a_workflow_takes_slots_only_for_adapters_that_the_caller_may_use() -> None:
    async with preloading() as (preloads, adapters, _):
        preloads.requested(caller("bob", "tax"), "audit", [], ACTIVE)
        await settle()
        assert loaded(adapters) == {TAX.adapter_id}
        preloads.requested(caller("ann"), "audit", [], ACTIVE)
        await settle()
        assert loaded(adapters) == {LAW.adapter_id, TAX.adapter_id}


async def test_a_workflow_that_is_not_configured_is_an_error_for_operators_and_nothing_for_requests() -> None:
    async with preloading() as (preloads, adapters, _):
        preloads.requested(caller(), "unheard of", [], ACTIVE)
        await settle()
        assert not loaded(adapters)
        with pytest.raises(NotFound, match="audit"):
            preloads.of_workflow("unheard of", ACTIVE)
        assert preloads.of_workflow("audit", ACTIVE) == ([LAW, TAX], ["ghost-lora"])


@pytest.mark.requirement("AS-5.1")
async def test_a_likely_adapter_takes_the_slot_of_an_idle_one_and_never_that_of_one_in_use_or_pinned() -> None:
    async with preloading(slots=2, rules=Rules(replace_idle=True)) as (preloads, adapters, _):
        for _ in range(5):
            for one in (LAW, TAX, HR):
                async with adapters.lease(one):
                    preloads.requested(caller(), "", [one], ACTIVE)
        await settle()
        async with adapters.lease(LAW):
            pass
        async with adapters.lease(TAX):
            preloads.requested(caller(), "", [LAW], ACTIVE)
            preloads.requested(caller(), "", [TAX], ACTIVE)
            await settle()
            assert loaded(adapters) == {TAX.adapter_id, HR.adapter_id}
            assert adapters.views[0].adapter == HR
            assert adapters.views[0].usage.uses == 5
        adapters.preload(TAX, Priority.PINNED)
        async with adapters.lease(HR):
            preloads.requested(caller(), "", [HR], ACTIVE)  # law is next
            await settle()
            assert loaded(adapters) == {TAX.adapter_id, HR.adapter_id}


async def test_a_lazy_process_predicts_nothing() -> None:
    async with preloading(policy=ActivationPolicy("lazy")) as (preloads, adapters, _):
        for _ in range(10):
            for one in (LAW, TAX, HR):
                preloads.requested(caller(), "", [one], ACTIVE)
        await settle()
        assert not adapters.states


async def test_a_new_version_takes_the_place_of_the_one_that_is_in_a_slot_though_all_are_taken() -> None:
    async with preloading(slots=2, policy=ActivationPolicy("lazy", hot_reload=True)) as (preloads, adapters, _):
        for one in (LAW, TAX):
            async with adapters.lease(one):
                pass
        newer = adapter("2.0.0", domain="law")
        preloads.activated(newer)
        adapters.retire(LAW.adapter_id, "replaced")
        await settle()
        assert loaded(adapters) == {newer.adapter_id, TAX.adapter_id}


async def test_redundancy_keeps_an_active_adapter_on_disk_without_a_slot() -> None:
    policy = ActivationPolicy("lazy", hot_reload=False, redundancy=True)
    async with preloading(policy=policy) as (preloads, adapters, _):
        preloads.activated(LAW)
        await settle()
        assert isinstance(adapters.states[LAW.adapter_id], Cached)
