"""Whatever comes in whatever order: the promises of `Adapters` hold."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_events.v1 import Adapter
from inference.events import adapter
from services.inference.slots.adapters import Adapters
from services.inference.slots.allocation import Priority, Room, Rules
from services.inference.slots.states import IN_SLOT, Loaded, LoadFailed, OnDisk, Proof, Yielding

FLEET = [adapter(f"{number}.0.0", domain=domain) for domain in ("law", "tax", "hr") for number in range(1, 4)]
PINNED = FLEET[0]
LARGEST, SHARING = 4, 2


@dataclass
class SlowLoader:
    """Every step takes a few turns of the loop; `inside` is what slots hold, as the engine would see it.

    slots: how many adapters of the largest size there is memory for.
    """

    slots: int
    sizes: dict[str, int]
    turns: list[int]
    inside: set[str] = field(default_factory=set)
    unloaded: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    async def _turns(self) -> None:
        self.turns.append(self.turns.pop(0))
        for _ in range(self.turns[0]):
            await asyncio.sleep(0)

    async def fetch(self, adapter: Adapter) -> OnDisk:
        await self._turns()
        return OnDisk(Path(adapter.adapter_id), self.sizes[adapter.adapter_id])

    async def load(self, adapter: Adapter, file: OnDisk) -> Proof:
        assert adapter.adapter_id not in self.inside
        self.inside.add(adapter.adapter_id)
        assert len(self.inside) <= self.slots * SHARING
        assert sum(self.sizes[one] for one in self.inside) <= self.slots * LARGEST
        await self._turns()
        if adapter.version == "3.0.0" and adapter.adapter_id not in self.failed:
            self.failed.add(adapter.adapter_id)
            self.inside.discard(adapter.adapter_id)
            raise LoadFailed("no_effect", "as scripted", transient=True)
        return Proof(modules_bound=1, max_delta=1.0, compared=False)

    async def unload(self, adapter_id: str) -> None:
        await self._turns()
        self.inside.discard(adapter_id)
        self.unloaded.append(adapter_id)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "ask a set", "give up", "preload", "predict", "evict", "hold", "expand"]),
        st.integers(0, len(FLEET) - 1),
        st.integers(0, 6),
    ),
    min_size=1,
    max_size=40,
)


@pytest.mark.requirement("AS-4.1")
@settings(max_examples=60, deadline=None)
@given(
    steps=STEPS,
    slots=st.integers(2, 4),
    sizes=st.lists(st.integers(1, LARGEST), min_size=len(FLEET), max_size=len(FLEET)),
    turns=st.lists(st.integers(0, 5), min_size=1, max_size=7),
    patience=st.sampled_from([0.0, 0.001, 60.0]),
    pin=st.booleans(),
)
def test_no_request_starves_slots_are_never_exceeded_pins_stay_and_leases_end(
    steps: list[Step], slots: int, sizes: list[int], turns: list[int], patience: float, pin: bool
) -> None:
    named = dict(zip([one.adapter_id for one in FLEET], sizes, strict=True))
    asyncio.run(_play(steps, SlowLoader(slots, named, turns), Rules(patience, replace_idle=True), pin=pin))


async def _play(steps: list[Step], loader: SlowLoader, rules: Rules, *, pin: bool) -> None:
    adapters = Adapters(
        loader,
        slots=loader.slots,
        room=Room(loader.slots * SHARING, loader.slots * LARGEST),
        deadline=10,
        retry=0.0,
        on_loaded=_nothing,
        on_unloaded=_nothing,
        rules=rules,
    )
    owner = asyncio.create_task(adapters.run())
    if pin:
        adapters.preload(PINNED, Priority.PINNED)
    tasks = []
    for kind, number, turns in steps:
        one, another = FLEET[number], FLEET[(number + turns + 1) % len(FLEET)]
        match kind:
            case "ask":
                tasks.append(asyncio.create_task(_use(adapters, [one], turns)))
            case "ask a set" if loader.slots > 2 or not pin:
                tasks.append(asyncio.create_task(_use(adapters, [one, another], turns)))
            case "give up":
                task = asyncio.create_task(_use(adapters, [one], turns))
                asyncio.get_running_loop().call_soon(task.cancel)
            case "preload":
                adapters.preload(one)
            case "predict":
                adapters.preload(one, Priority.PREDICTION)
            case "evict":
                await adapters.evict("evicted", only=frozenset({one.adapter_id}))
            case "expand":
                adapters.expand(allowed=turns > 2)
            case _:
                await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not owner.done(), owner.exception()
    states = adapters.states
    assert loader.inside >= {one for one, state in states.items() if isinstance(state, Loaded)}
    taken = Room.of(state.file.size for state in states.values() if isinstance(state, IN_SLOT))
    assert taken.slots <= loader.slots * SHARING
    assert taken.memory <= loader.slots * LARGEST
    assert not any(isinstance(state, Loaded | Yielding) and state.users for state in states.values())
    assert not (pin and PINNED.adapter_id in loader.unloaded)
    owner.cancel()


async def _use(adapters: Adapters, wanted: list[Adapter], turns: int) -> None:
    while True:
        try:
            async with adapters.lease_all(wanted):
                for one in wanted:
                    assert isinstance(adapters.states[one.adapter_id], Loaded | Yielding)
                for _ in range(turns):
                    await asyncio.sleep(0)
                return
        except Exception as error:
            if getattr(error, "code", "") != "no_effect":
                raise


def _nothing(*_: object) -> None:
    pass
