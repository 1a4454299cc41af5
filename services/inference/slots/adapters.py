"""Bring adapters into slots and out of them. One task, the scheduler, owns every state and is sent messages."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from fleet_events.v1 import Adapter
from services.inference import metrics
from services.inference.errors import Busy, CannotServe
from services.inference.slots.allocation import Priority, Room, Rules
from services.inference.slots.messages import Abandon, Acquire, Evict, Expand, Preload, Release, Retire
from services.inference.slots.scheduler import Scheduler
from services.inference.slots.states import Proof, State
from services.inference.slots.transfers import Loader
from services.inference.slots.usage import Usage

__all__ = ["Adapters", "Loader", "View"]


@dataclass(frozen=True, slots=True)
class View:
    """An adapter as operators see it. `wanted`: why it is to be in a slot; `waiting`: requests."""

    adapter: Adapter
    state: State
    usage: Usage
    wanted: Priority | None
    waiting: int


class Adapters:
    """The adapters of one base model: `lease` one to generate with it.

    `room`: for all of them together. `slots`: how many fit whatever their size. `deadline`: seconds a request waits.
    `retry`: seconds after which a failed adapter may be tried again. `on_loaded(adapter, proof, seconds)` and
    `on_unloaded(adapter, reason)` are called on changes and must not block. `name`: the base model's, in metrics.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        slots: int,
        room: Room,
        deadline: float,
        retry: float,
        on_loaded: Callable[[Adapter, Proof, float], None],
        on_unloaded: Callable[[Adapter, str], None],
        rules: Rules | None = None,
        name: str = "",
    ) -> None:
        self.slots = slots
        self._deadline = deadline
        self._name = name
        self._scheduler = Scheduler(
            loader,
            room=room,
            retry=retry,
            rules=rules or Rules(),
            on_loaded=on_loaded,
            on_unloaded=on_unloaded,
            name=name,
        )
        self._inbox = self._scheduler.inbox
        self._one_set = asyncio.Lock()

    @property
    def states(self) -> Mapping[str, State]:
        """A snapshot."""
        return dict(self._scheduler.states)

    @property
    def views(self) -> Sequence[View]:
        """A snapshot of every adapter that was touched, by id."""
        own = self._scheduler
        return [
            View(own.adapters[one], state, own.usage.of(one), own.queue.preloaded(one), own.queue.waiting(one))
            for one, state in sorted(own.states.items())
        ]

    @asynccontextmanager
    async def lease(self, adapter: Adapter, wait_credit: float = 0.0) -> AsyncIterator[None]:
        """The adapter is loaded, proved and stays in its slot inside this context.

        `wait_credit`: seconds by which the request counts as having waited longer than it has.

        Raises:
            CannotServe: it failed its checks.
            Busy: it was not loaded in time, or its object store is unavailable.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = time.monotonic()
        self._inbox.put_nowait(Acquire(adapter, granted, begun - wait_credit))
        try:
            async with asyncio.timeout(self._deadline):
                await granted
        except TimeoutError:
            self._inbox.put_nowait(Abandon(adapter.adapter_id, granted))
            raise _too_late(f"adapter {adapter.adapter_id!r} was not loaded", self._deadline) from None
        except asyncio.CancelledError:
            self._inbox.put_nowait(Abandon(adapter.adapter_id, granted))
            raise
        finally:
            metrics.WAIT_SECONDS.labels(self._name).observe(time.monotonic() - begun)
        try:
            yield
        finally:
            self._inbox.put_nowait(Release(adapter.adapter_id))

    @asynccontextmanager
    async def lease_all(self, adapters: Sequence[Adapter], wait_credit: float = 0.0) -> AsyncIterator[None]:
        """As `lease`, of all of them at once. Raises `CannotServe` also for more than the slots can hold."""
        if len(adapters) > self.slots - len(
            self._scheduler.queue.pinned.difference(one.adapter_id for one in adapters)
        ):
            raise CannotServe(
                f"{len(adapters)} adapters at once do not fit into the slots of this server.",
                code="too_few_slots",
                param="model",
            )
        async with AsyncExitStack() as held, AsyncExitStack() as turn:
            if len(adapters) > 1:
                # Sets that each hold a part and wait for the rest would wait for ever: one at a time gathers its own.
                try:
                    async with asyncio.timeout(self._deadline):
                        await turn.enter_async_context(self._one_set)
                except TimeoutError:
                    raise _too_late("other sets of adapters were waiting", self._deadline) from None
            for adapter in adapters:
                await held.enter_async_context(self.lease(adapter, wait_credit))
            await turn.aclose()
            yield

    def preload(self, adapter: Adapter, priority: Priority = Priority.ACTIVATION) -> None:
        """Bring it in though no request waits for it; see `Priority` for what leaves for it."""
        self._inbox.put_nowait(Preload(adapter, priority))

    def retire(self, adapter_id: str, reason: str) -> None:
        """Unload it when its running requests are done; it is pinned and wanted no more."""
        self._inbox.put_nowait(Retire(adapter_id, reason))

    async def evict(self, reason: str, *, idle_for: float = 0.0, only: frozenset[str] | None = None) -> tuple[str, ...]:
        """Adapters that are neither in use nor pinned leave their slots; which ones do.

        They come back when they are requested or preloaded again. `idle_for`: seconds that they have not been used.
        """
        leaving: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(Evict(idle_for, only, reason, leaving))
        return await leaving

    def expand(self, *, allowed: bool) -> None:
        """Whether anything but requests and pinned adapters may be brought into slots; what is wanted is kept."""
        self._inbox.put_nowait(Expand(allowed))

    async def run(self) -> None:
        """Run the scheduler until it is cancelled."""
        await self._scheduler.run()


def _too_late(what: str, deadline: float) -> Busy:
    return Busy(f"{what} within {deadline:g} s; try again.", code="adapter_loading", param="model", retry_after=2)
