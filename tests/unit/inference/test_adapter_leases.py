"""Requests that wait for an adapter, go away, or need a slot that others hold."""

import asyncio

import pytest

from fleet_events.v1 import Adapter
from inference.events import adapter
from inference.scripted import ScriptedLoader, hold, running, settle
from inference.test_adapters import A, B, C
from services.inference.errors import CannotServe
from services.inference.slots.allocation import Priority, Rules
from services.inference.slots.states import Loaded, Yielding


async def test_a_request_that_goes_away_while_waiting_leaves_no_user_behind() -> None:
    loader = ScriptedLoader()
    loader.gate.clear()
    async with running(loader) as adapters:

        async def request() -> None:
            async with adapters.lease(A):
                await asyncio.sleep(10)

        task = asyncio.create_task(request())
        await settle()
        task.cancel()
        await settle()
        loader.gate.set()
        await settle()
        # Nobody waits for it any more; loaded or not, it has no users.
        state = adapters.states[A.adapter_id]
        assert isinstance(state, Loaded)
        assert state.users == 0


async def test_a_request_that_goes_away_in_the_moment_in_which_it_is_granted_leaves_no_user_behind() -> None:
    tasks: list[asyncio.Task[None]] = []

    def cancel(*_: object) -> None:
        # Granted right after this, and cancelled before it learns of that.
        asyncio.get_running_loop().call_soon(tasks[0].cancel)

    async with running(ScriptedLoader(), on_loaded=cancel) as adapters:
        tasks.append(asyncio.create_task(hold(adapters, A, asyncio.Event())))
        await settle()
        assert tasks[0].cancelled()
        state = adapters.states[A.adapter_id]
        assert isinstance(state, Loaded)
        assert (state.users, adapters.views[0].usage.uses) == (0, 1)


@pytest.mark.requirement("AS-4.1")
async def test_an_adapter_that_is_always_in_use_gives_way_to_a_request_that_has_waited_for_long() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=1, rules=Rules(patience=0.0)) as adapters:
        first, second = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(hold(adapters, A, first))]
        await settle()
        tasks.append(asyncio.create_task(hold(adapters, B, second)))
        await settle()
        assert isinstance(adapters.states[A.adapter_id], Yielding)
        tasks.append(asyncio.create_task(hold(adapters, A, second)))
        first.set()
        await settle()
        assert isinstance(adapters.states[B.adapter_id], Loaded | Yielding), "the later request of A went first"
        second.set()
        await asyncio.gather(*tasks)
        assert loader.calls.count("load 1.0.0") == 2


async def test_an_adapter_that_gave_way_to_a_request_that_went_away_takes_requests_again() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=1, rules=Rules(patience=0.0)) as adapters:
        done = asyncio.Event()
        using = asyncio.create_task(hold(adapters, A, done))
        await settle()
        waiting = asyncio.create_task(hold(adapters, B, done))
        await settle()
        assert isinstance(adapters.states[A.adapter_id], Yielding)
        waiting.cancel()
        async with adapters.lease(A):
            assert isinstance(adapters.states[A.adapter_id], Loaded)
        done.set()
        await using
        assert loader.calls.count("load 1.0.0") == 1


async def test_two_sets_that_need_all_slots_between_them_do_not_wait_for_each_other() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=2) as adapters:

        async def use(*wanted: Adapter) -> None:
            async with adapters.lease_all(wanted):
                await settle()

        tasks = [use(A, C), use(B, adapter("4.0.0")), use(B, A), use(C, B)]
        await asyncio.wait_for(asyncio.gather(*tasks), 2)


async def test_a_set_that_is_larger_than_the_slots_is_refused_at_once() -> None:
    async with running(ScriptedLoader(), slots=2) as adapters:
        adapters.preload(C, Priority.PINNED)
        await settle()
        with pytest.raises(CannotServe, match="do not fit"):
            async with adapters.lease_all([A, B]):
                pass


async def test_a_head_start_puts_a_request_before_those_that_came_earlier() -> None:
    loader = ScriptedLoader()
    async with running(loader, slots=1) as adapters:
        done = asyncio.Event()
        using = asyncio.create_task(hold(adapters, A, done))
        await settle()

        async def use(one: Adapter, wait_credit: float) -> None:
            async with adapters.lease(one, wait_credit):
                pass

        tasks = [asyncio.create_task(use(B, 0.0)), asyncio.create_task(use(C, 1.0))]
        await settle()
        done.set()
        await asyncio.gather(using, *tasks)
        assert [call for call in loader.calls if call.startswith("load")] == ["load 1.0.0", "load 3.0.0", "load 2.0.0"]
