"""Brings adapters into slots and out of them. One task owns every state; everybody else sends it messages."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from fleet_events.v1 import Adapter

from .errors import Busy
from .messages import Abandon, Acquire, Bound, Fetched, Message, Preload, Release, Retire, Unbound
from .states import (
    IN_SLOT,
    Cached,
    Draining,
    Failed,
    Fetching,
    Known,
    Loaded,
    LoadFailed,
    Loading,
    Proof,
    State,
    Unloading,
)

log = structlog.get_logger()
FETCHES = 4
"""Downloads at once."""


class Loader(Protocol):
    """Moves an adapter's bytes; `loader.py` is the real one. Every method raises `LoadFailed`."""

    async def fetch(self, adapter: Adapter) -> Path: ...
    async def load(self, adapter: Adapter, path: Path) -> Proof: ...
    async def unload(self, adapter_id: str) -> None: ...


class Adapters:
    """The adapters of this process: `lease` one to generate with it.

    ``slots``: how many may be loaded. ``deadline``: seconds a request waits. ``retry``: seconds after which
    a failed adapter may be tried again. ``on_loaded(adapter, proof, seconds)`` and
    ``on_unloaded(adapter, reason)`` are told of changes and must not block.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        slots: int,
        deadline: float,
        retry: float,
        on_loaded: Callable[[Adapter, Proof, float], None],
        on_unloaded: Callable[[Adapter, str], None],
    ) -> None:
        self._loader = loader
        self._slots = slots
        self._deadline = deadline
        self._retry = retry
        self._on_loaded = on_loaded
        self._on_unloaded = on_unloaded
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._states: dict[str, State] = {}
        self._adapters: dict[str, Adapter] = {}
        # Requests waiting for an adapter, in order of arrival; and adapters wanted while a slot is free.
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._wanted: dict[str, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def states(self) -> Mapping[str, State]:
        """A snapshot."""
        return dict(self._states)

    @asynccontextmanager
    async def lease(self, adapter: Adapter) -> AsyncIterator[None]:
        """The adapter is loaded, proved and stays in its slot inside this context.

        Raises:
            CannotServe: it failed its checks.
            Busy: it was not loaded in time, or its object store is away.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(Acquire(adapter, granted))
        try:
            async with asyncio.timeout(self._deadline):
                await granted
        except TimeoutError:
            self._inbox.put_nowait(Abandon(adapter.adapter_id, granted))
            raise Busy(
                f"adapter {adapter.adapter_id!r} was not loaded within {self._deadline:g} s; try again.",
                code="adapter_loading",
                param="model",
                retry_after=2,
            ) from None
        except asyncio.CancelledError:
            self._inbox.put_nowait(Abandon(adapter.adapter_id, granted))
            raise
        try:
            yield
        finally:
            self._inbox.put_nowait(Release(adapter.adapter_id))

    def preload(self, adapter: Adapter) -> None:
        """Load it as soon as a slot is free; nothing is evicted for it."""
        self._inbox.put_nowait(Preload(adapter))

    def retire(self, adapter_id: str, reason: str) -> None:
        """Unload it when its running requests are done."""
        self._inbox.put_nowait(Retire(adapter_id, reason))

    async def run(self) -> None:
        """The owner task: handles one message at a time, for ever."""
        try:
            while True:
                self._handle(await self._inbox.get())
                self._fetch_next()
                self._place()
        finally:
            for task in self._tasks:
                task.cancel()

    def _handle(self, message: Message) -> None:
        match message:
            case Acquire(adapter, granted):
                self._acquire(adapter, granted)
            case Abandon(adapter_id, granted):
                waiting = self._waiting.get(adapter_id, [])
                if granted in waiting:
                    waiting.remove(granted)
                elif not granted.cancelled() and granted.exception() is None:
                    self._release(adapter_id)  # granted in the moment in which it was given up
            case Release(adapter_id):
                self._release(adapter_id)
            case Preload(adapter):
                self._know(adapter)
                self._wanted[adapter.adapter_id] = None
            case Retire(adapter_id, reason):
                self._retire(adapter_id, reason)
            case Fetched(adapter_id, result):
                if isinstance(result, LoadFailed):
                    self._fail(adapter_id, result)
                else:
                    self._states[adapter_id] = Cached(result)
            case Bound(adapter_id, result, seconds):
                self._bound(adapter_id, result, seconds)
            case Unbound(adapter_id, reason):
                self._unbound(adapter_id, reason)

    def _know(self, adapter: Adapter) -> None:
        held = self._states.get(adapter.adapter_id)
        if held is None or (isinstance(held, Failed) and held.retry_at <= time.monotonic()):
            self._states[adapter.adapter_id] = Known()
            self._adapters[adapter.adapter_id] = adapter

    def _acquire(self, adapter: Adapter, granted: asyncio.Future[None]) -> None:
        if granted.done():
            return
        self._know(adapter)
        adapter_id = adapter.adapter_id
        match self._states[adapter_id]:
            case Failed(failure, retry_at):
                granted.set_exception(failure.to_api(adapter_id, max(1.0, retry_at - time.monotonic())))
            case Loaded() | Draining():
                self._grant(adapter_id, granted)
            case _:
                self._waiting.setdefault(adapter_id, []).append(granted)

    def _grant(self, adapter_id: str, granted: asyncio.Future[None]) -> None:
        if granted.done():
            return
        match self._states[adapter_id]:
            case Loaded() as held:
                self._states[adapter_id] = replace(
                    held, users=held.users + 1, uses=held.uses + 1, last_used=time.monotonic()
                )
            case Draining() as held:
                self._states[adapter_id] = replace(held, users=held.users + 1)
            case other:
                raise AssertionError(f"{adapter_id} was granted while {other}")
        granted.set_result(None)

    def _release(self, adapter_id: str) -> None:
        match self._states.get(adapter_id):
            case Loaded() as held:
                self._states[adapter_id] = replace(held, users=held.users - 1)
            case Draining(path, reason, users) as held:
                self._states[adapter_id] = replace(held, users=users - 1)
                if users == 1:
                    self._unload(adapter_id, path, reason, gone=True)
            case other:
                raise AssertionError(f"{adapter_id} was released while {other}")

    def _retire(self, adapter_id: str, reason: str) -> None:
        self._wanted.pop(adapter_id, None)
        match self._states.get(adapter_id):
            case Loaded(path=path, users=0):
                self._unload(adapter_id, path, reason, gone=True)
            case Loaded(path=path, users=users):
                self._states[adapter_id] = Draining(path, reason, users)
            case Known() | Cached() | Failed() if not self._waiting.get(adapter_id):
                self._forget(adapter_id)
            case _:
                # On its way in for a request that was resolved before: least recently used takes it out.
                pass

    def _fail(self, adapter_id: str, failure: LoadFailed) -> None:
        log.warning("adapter_failed", adapter_id=adapter_id, code=failure.code, reason=failure.reason)
        wait = min(1.0, self._retry) if failure.transient else self._retry
        self._states[adapter_id] = Failed(failure, time.monotonic() + wait)
        if failure.transient and adapter_id in self._wanted:
            # Nobody may ask for it for long, yet it is to be there when somebody does.
            again = Preload(self._adapters[adapter_id])
            asyncio.get_running_loop().call_later(wait, self._inbox.put_nowait, again)
        for granted in self._waiting.pop(adapter_id, []):
            if not granted.done():
                granted.set_exception(failure.to_api(adapter_id, wait))

    def _bound(self, adapter_id: str, result: Proof | LoadFailed, seconds: float) -> None:
        held = self._states[adapter_id]
        if isinstance(result, LoadFailed):
            self._fail(adapter_id, result)
            return
        if not isinstance(held, Loading):
            raise AssertionError(f"{adapter_id} was bound while {held}")
        self._states[adapter_id] = Loaded(held.path, result, last_used=time.monotonic())
        self._on_loaded(self._adapters[adapter_id], result, seconds)
        for granted in self._waiting.pop(adapter_id, []):
            self._grant(adapter_id, granted)

    def _unbound(self, adapter_id: str, reason: str) -> None:
        self._on_unloaded(self._adapters[adapter_id], reason)
        held = self._states[adapter_id]
        if not isinstance(held, Unloading):
            raise AssertionError(f"{adapter_id} was unbound while {held}")
        self._states[adapter_id] = Cached(held.path)
        if held.gone and not self._waiting.get(adapter_id):
            self._forget(adapter_id)

    def _forget(self, adapter_id: str) -> None:
        for known in (self._states, self._adapters, self._waiting, self._wanted):
            known.pop(adapter_id, None)

    def _fetch_next(self) -> None:
        """Starts downloads, those that requests wait for first."""
        known = [one for one, state in self._states.items() if isinstance(state, Known)]
        known.sort(key=lambda one: not self._waiting.get(one))
        fetching = sum(isinstance(state, Fetching) for state in self._states.values())
        for adapter_id in known[: max(0, FETCHES - fetching)]:
            self._states[adapter_id] = Fetching()
            self._start(self._fetch(self._adapters[adapter_id]))

    def _place(self) -> None:
        """Puts cached adapters into slots; for those that requests wait for, idle ones have to leave."""
        free = self._slots - sum(isinstance(state, IN_SLOT) for state in self._states.values())
        cached = {one: state.path for one, state in self._states.items() if isinstance(state, Cached)}
        asked_for = [one for one in self._waiting if self._waiting[one] and one in cached]
        wanted = [one for one in self._wanted if one in cached and one not in asked_for]
        for adapter_id in (asked_for + wanted)[: max(0, free)]:
            self._states[adapter_id] = Loading(cached[adapter_id])
            self._start(self._load(self._adapters[adapter_id], cached[adapter_id]))
        leaving = sum(isinstance(state, Unloading) for state in self._states.values())
        idle = sorted(
            (state.last_used, one)
            for one, state in self._states.items()
            if isinstance(state, Loaded) and state.users == 0
        )
        for _, adapter_id in idle[: max(0, len(asked_for) - free - leaving)]:
            held = self._states[adapter_id]
            if isinstance(held, Loaded):
                self._unload(adapter_id, held.path, "evicted", gone=False)

    def _unload(self, adapter_id: str, path: Path, reason: str, *, gone: bool) -> None:
        self._states[adapter_id] = Unloading(path, gone)
        self._start(self._take_out(adapter_id, reason))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, adapter: Adapter) -> None:
        try:
            result: Path | LoadFailed = await self._loader.fetch(adapter)
        except LoadFailed as failure:
            result = failure
        except Exception as error:  # a state must never be left hanging: its requests would wait for nothing
            log.exception("fetch_failed", adapter_id=adapter.adapter_id)
            result = LoadFailed("fetch_failed", f"{type(error).__name__}: {error}", transient=True)
        self._inbox.put_nowait(Fetched(adapter.adapter_id, result))

    async def _load(self, adapter: Adapter, path: Path) -> None:
        begun = time.monotonic()
        try:
            result: Proof | LoadFailed = await self._loader.load(adapter, path)
        except LoadFailed as failure:
            result = failure
        except Exception as error:  # as above
            log.exception("load_failed", adapter_id=adapter.adapter_id)
            result = LoadFailed("load_failed", f"{type(error).__name__}: {error}")
        self._inbox.put_nowait(Bound(adapter.adapter_id, result, time.monotonic() - begun))

    async def _take_out(self, adapter_id: str, reason: str) -> None:
        try:
            await self._loader.unload(adapter_id)
        finally:
            self._inbox.put_nowait(Unbound(adapter_id, reason))
