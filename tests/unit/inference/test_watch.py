"""What each level of memory pressure does to the adapters in slots."""

from typing import Any

import pytest

from fleet_kit.memory import Reading
from inference.events import BASE_REVISION, adapter
from inference.scripted import ScriptedLoader, running, settle
from services.inference.base_models import BaseModels, ServedBaseModel
from services.inference.policies.pressure import Ladder, Level
from services.inference.policies.watch import PressureWatch
from services.inference.resolution import Base
from services.inference.slots.allocation import Priority
from services.inference.slots.states import Cached, Loaded

IN_USE, PINNED, IDLE, LATER = (adapter(f"{number}.0.0") for number in range(1, 5))


@pytest.mark.requirement("AS-6.1")
async def test_low_preloads_medium_holds_high_evicts_the_idle_critical_keeps_only_what_is_in_use_or_pinned() -> None:
    nothing: Any = None
    share, trims = 0.0, []

    async def trim() -> None:
        trims.append(share)

    async with running(ScriptedLoader(), slots=4) as adapters:
        hosting = BaseModels([ServedBaseModel(Base("tiny", BASE_REVISION), nothing, adapters, nothing, nothing, trim)])

        def watch(idle: float) -> PressureWatch:
            return PressureWatch(
                hosting, Ladder(), idle=idle, every=5, read=lambda: [Reading("test", round(share * 100), 100)]
            )

        async def look(now: float, idle: float = 600.0) -> Level:
            nonlocal share
            share = now
            watching = watch(idle)
            await watching.look()
            await settle()
            return watching.level

        def loaded() -> set[str]:
            return {one for one, state in adapters.states.items() if isinstance(state, Loaded)}

        adapters.preload(PINNED, Priority.PINNED)
        adapters.preload(IDLE)
        async with adapters.lease(IN_USE):
            assert await look(0.1) is Level.LOW
            assert loaded() == {IN_USE.adapter_id, PINNED.adapter_id, IDLE.adapter_id}

            assert await look(0.8) is Level.MEDIUM
            adapters.preload(LATER)
            await settle()
            assert isinstance(adapters.states[LATER.adapter_id], Cached)
            assert IDLE.adapter_id in loaded()

            assert await look(0.9) is Level.HIGH
            assert IDLE.adapter_id in loaded(), "it has not been idle for ten minutes"
            assert await look(0.9, idle=0.0) is Level.HIGH
            assert loaded() == {IN_USE.adapter_id, PINNED.adapter_id}

            async with adapters.lease(IDLE):
                pass
            assert await look(0.97) is Level.CRITICAL
            assert loaded() == {IN_USE.adapter_id, PINNED.adapter_id}
            assert trims == [0.9, 0.9, 0.97]

            assert await look(0.1) is Level.LOW
            assert loaded() == {IN_USE.adapter_id, PINNED.adapter_id, LATER.adapter_id}


@pytest.mark.requirement("AS-6.1")
async def test_a_request_is_served_at_every_level() -> None:
    nothing: Any = None
    async with running(ScriptedLoader(), slots=1) as adapters:
        hosting = BaseModels(
            [ServedBaseModel(Base("tiny", BASE_REVISION), nothing, adapters, nothing, nothing, settle)]
        )
        await PressureWatch(hosting, Ladder(), idle=0, every=5, read=lambda: [Reading("test", 99, 100)]).look()
        async with adapters.lease(IDLE):
            assert isinstance(adapters.states[IDLE.adapter_id], Loaded)


async def test_adapters_on_servers_elsewhere_are_not_evicted_for_this_machines_memory() -> None:
    nothing: Any = None
    async with running(ScriptedLoader(), slots=1) as adapters:
        async with adapters.lease(IDLE):
            pass
        hosting = BaseModels([ServedBaseModel(Base("tiny", BASE_REVISION), nothing, adapters, nothing, nothing)])
        await PressureWatch(hosting, Ladder(), idle=0, every=5, read=lambda: [Reading("test", 99, 100)]).look()
        await settle()
        assert isinstance(adapters.states[IDLE.adapter_id], Loaded)
