"""How adapters come into slots and leave them, with a loader whose steps the test lets through one by one."""

import asyncio
import time

import pytest

from inference.events import adapter
from inference.scripted import ScriptedLoader, running, settle
from services.inference.errors import Busy, CannotServe
from services.inference.slots.allocation import Priority
from services.inference.slots.states import ARTIFACT_GONE, Cached, Draining, Failed, Loaded, LoadFailed

A, B, C = (adapter(version) for version in ("1.0.0", "2.0.0", "3.0.0"))


async def test_a_request_waits_until_the_adapter_is_proved() -> None:
    loader = ScriptedLoader()
    loader.gate.clear()
    async with running(loader) as adapters:
        entered = asyncio.Event()

        async def request() -> None:
            async with adapters.lease(A):
                entered.set()

        task = asyncio.create_task(request())
        await settle()
        assert not entered.is_set()
        loader.gate.set()
        await task
        assert loader.calls == ["fetch 1.0.0", "load 1.0.0"]


async def test_twenty_requests_for_one_adapter_load_it_once() -> None:
    loader = ScriptedLoader()
    async with running(loader) as adapters:

        async def request() -> None:
            async with adapters.lease(A):
                await asyncio.sleep(0)

        await asyncio.gather(*(request() for _ in range(20)))
        await settle()
        state = adapters.states[A.adapter_id]
        assert isinstance(state, Loaded)
        assert state.users == 0
        assert adapters.views[0].usage.uses == 20
        assert loader.calls == ["fetch 1.0.0", "load 1.0.0"]


async def test_the_least_recently_used_idle_adapter_makes_room() -> None:
    loader = ScriptedLoader()
    async with running(loader) as adapters:
        for one in (A, B, A, C):
            async with adapters.lease(one):
                pass
        assert isinstance(adapters.states[B.adapter_id], Cached)
        assert isinstance(adapters.states[A.adapter_id], Loaded)
        assert loader.calls[-2:] == ["unload 2.0.0", "load 3.0.0"]


async def test_an_adapter_in_use_is_never_evicted() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=1, deadline=0.05) as adapters, adapters.lease(A):
        with pytest.raises(Busy) as caught:
            async with adapters.lease(B):
                pass
        assert caught.value.retry_after
        assert "unload 1.0.0" not in loader.calls


async def test_a_waiting_request_gets_the_slot_as_soon_as_it_is_idle() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=1) as adapters:

        async def request() -> None:
            async with adapters.lease(B):
                pass

        async with adapters.lease(A):
            task = asyncio.create_task(request())
            await settle()
            assert not task.done()
        await asyncio.wait_for(task, 1)


@pytest.mark.requirement("AM-3.1")
async def test_preloading_takes_a_free_slot_and_evicts_none() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=1) as adapters:
        adapters.preload(A)
        await settle()
        assert isinstance(adapters.states[A.adapter_id], Loaded)
        adapters.preload(B)
        await settle()
        assert isinstance(adapters.states[A.adapter_id], Loaded)
        assert isinstance(adapters.states[B.adapter_id], Cached)


@pytest.mark.requirement("AS-5.2")
async def test_an_adapter_that_merely_filled_a_free_slot_makes_room_for_a_workflow() -> None:
    loader = ScriptedLoader()
    loader.gate.clear()
    async with running(loader, slots=1) as adapters:
        adapters.preload(A)
        await settle()
        adapters.preload(B, Priority.WORKFLOW)
        await settle()
        loader.gate.set()
        await settle()
        assert isinstance(adapters.states[A.adapter_id], Cached)
        assert isinstance(adapters.states[B.adapter_id], Loaded)


@pytest.mark.requirement("AM-3.2")
async def test_a_retired_adapter_serves_its_running_request_to_the_end() -> None:
    loader = ScriptedLoader()
    async with running(loader) as adapters:
        async with adapters.lease(A):
            adapters.retire(A.adapter_id, "deactivated")
            await settle()
            assert isinstance(adapters.states[A.adapter_id], Draining)
            assert "unload 1.0.0" not in loader.calls
        await settle()
        assert loader.calls[-1] == "unload 1.0.0"
        assert A.adapter_id not in adapters.states


async def test_a_failed_adapter_refuses_its_requests_and_is_not_tried_again_at_once() -> None:
    loader = ScriptedLoader()
    loader.failures[A.adapter_id] = LoadFailed("no_effect", "its logits are the base model's")
    async with running(loader) as adapters:
        for _ in range(2):
            with pytest.raises(CannotServe, match="its logits are the base model's"):
                async with adapters.lease(A):
                    pass
        assert isinstance(adapters.states[A.adapter_id], Failed)
        assert loader.calls.count("load 1.0.0") == 1


async def test_a_failed_adapter_is_tried_again_after_its_pause() -> None:
    loader = ScriptedLoader()
    loader.failures[A.adapter_id] = LoadFailed("artifact_corrupt", "wrong digest")
    async with running(loader, retry=0.0) as adapters:
        with pytest.raises(CannotServe):
            async with adapters.lease(A):
                pass
        loader.failures.clear()
        async with adapters.lease(A):
            pass


async def test_an_adapter_whose_file_has_left_the_disk_is_fetched_again_and_its_request_waits() -> None:
    loader = ScriptedLoader()
    async with running(loader) as adapters:
        loader.failures[A.adapter_id] = LoadFailed(ARTIFACT_GONE, "no file", transient=True)
        loader.fail_once = True
        async with adapters.lease(A):
            pass
        assert loader.calls == ["fetch 1.0.0", "load 1.0.0", "fetch 1.0.0", "load 1.0.0"]


async def test_a_failed_adapter_takes_no_slot() -> None:
    loader = ScriptedLoader()
    loader.failures[A.adapter_id] = LoadFailed("no_effect", "no effect")
    async with running(loader, slots=1) as adapters:
        with pytest.raises(CannotServe):
            async with adapters.lease(A):
                pass
        async with adapters.lease(B):
            pass


async def test_an_active_adapter_is_preloaded_as_soon_as_the_object_store_is_back() -> None:
    loader = ScriptedLoader()
    loader.failures[A.adapter_id] = LoadFailed("object_store_unavailable", "away", transient=True)
    async with running(loader, retry=0.02) as adapters:
        adapters.preload(A)
        await settle()
        assert isinstance(adapters.states[A.adapter_id], Failed)
        loader.failures.clear()
        async with asyncio.timeout(2):
            while not isinstance(adapters.states[A.adapter_id], Loaded):
                await asyncio.sleep(0.005)


async def test_a_pinned_adapter_takes_the_slot_of_an_idle_one_and_never_leaves_it_until_it_is_retired() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=2) as adapters:
        for one in (A, B):
            async with adapters.lease(one):
                pass
        adapters.preload(C, Priority.PINNED)
        await settle()
        assert isinstance(adapters.states[C.adapter_id], Loaded)
        for one in (A, B, A, B):
            async with adapters.lease(one):
                pass
        assert await adapters.evict("pressure") == (B.adapter_id,)
        assert "unload 3.0.0" not in loader.calls
        adapters.retire(C.adapter_id, "deactivated")
        await settle()
        assert loader.calls[-1] == "unload 3.0.0"


@pytest.mark.requirement("AS-4.2")
async def test_how_often_and_when_an_adapter_was_used_is_known_after_it_left_its_slot() -> None:
    async with running(ScriptedLoader(), slots=1) as adapters:
        for one in (A, A, B):
            async with adapters.lease(one):
                pass
        await settle()
        first = adapters.views[0]
        assert isinstance(first.state, Cached)
        assert (first.usage.uses, first.usage.loads) == (2, 1)
        assert first.usage.last_used == pytest.approx(time.time(), abs=60)


@pytest.mark.requirement("AS-6.1")
async def test_evicting_takes_those_out_that_have_been_idle_for_so_long_and_they_do_not_come_back_by_themselves() -> (
    None
):
    loader = ScriptedLoader()
    async with running(loader) as adapters:
        adapters.preload(A)
        async with adapters.lease(B):
            await settle()
            assert await adapters.evict("pressure", idle_for=600) == ()
            assert await adapters.evict("pressure") == (A.adapter_id,)
        await settle()
        assert isinstance(adapters.states[A.adapter_id], Cached)
        assert await adapters.evict("pressure", only=frozenset({A.adapter_id})) == ()
