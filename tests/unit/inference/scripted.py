"""Adapters with a loader whose steps the test lets through one by one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fleet_events.v1 import Adapter
from services.inference.slots.adapters import Adapters
from services.inference.slots.allocation import Room, Rules
from services.inference.slots.states import LoadFailed, OnDisk, Proof


class ScriptedLoader:
    """Does what the test says and notes what was asked of it."""

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        self.sizes = sizes or {}
        """Of versions; 1 where none is given."""
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: dict[str, LoadFailed] = {}
        self.fail_once = False

    async def fetch(self, adapter: Adapter) -> OnDisk:
        self.calls.append(f"fetch {adapter.version}")
        return OnDisk(Path(adapter.version), self.sizes.get(adapter.version, 1))

    async def load(self, adapter: Adapter, file: OnDisk) -> Proof:
        await self.gate.wait()
        self.calls.append(f"load {adapter.version}")
        if adapter.adapter_id in self.failures:
            raise self.failures.pop(adapter.adapter_id) if self.fail_once else self.failures[adapter.adapter_id]
        return Proof(modules_bound=1, max_delta=1.0, compared=False)

    async def unload(self, adapter_id: str) -> None:
        self.calls.append(f"unload {adapter_id.rpartition('v')[2]}")


@asynccontextmanager
async def running(
    loader: ScriptedLoader,
    slots: int = 2,
    deadline: float = 5.0,
    retry: float = 60.0,
    rules: Rules | None = None,
    on_loaded: Callable[..., None] = lambda *_: None,
    room: Room | None = None,
) -> AsyncIterator[Adapters]:
    adapters = Adapters(
        loader,
        slots=slots,
        room=room or Room(slots, slots),
        deadline=deadline,
        retry=retry,
        on_loaded=on_loaded,
        on_unloaded=lambda *_: None,
        rules=rules,
    )
    task = asyncio.create_task(adapters.run())
    try:
        yield adapters
        assert not task.done(), task.exception()
    finally:
        task.cancel()


async def hold(adapters: Adapters, one: Adapter, until: asyncio.Event) -> None:
    async with adapters.lease(one):
        await until.wait()


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)
