"""The one task that owns the states of a base model's adapters; it handles one message at a time."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import structlog

from fleet_events.v1 import Adapter
from services.inference import metrics
from services.inference.slots import slot_metrics
from services.inference.slots.allocation import Candidate, Occupant, Priority, Room, Rules, allocate
from services.inference.slots.messages import (
    Abandon,
    Acquire,
    Bound,
    Evict,
    Expand,
    Fetched,
    Look,
    Message,
    Preload,
    Release,
    Retire,
    Unbound,
)
from services.inference.slots.slot_queue import SlotQueue, Ticket
from services.inference.slots.states import (
    ARTIFACT_GONE,
    FOUND_IN,
    IN_SLOT,
    Cached,
    Draining,
    Failed,
    Fetching,
    InSlot,
    Known,
    Loaded,
    LoadFailed,
    Loading,
    OnDisk,
    Proof,
    State,
    Unloading,
    Yielding,
)
from services.inference.slots.transfers import Loader, Transfers
from services.inference.slots.usage import UsageTable

log = structlog.get_logger()
FETCHES = 4
"""Downloads at once."""


class Scheduler:
    """Moves adapters from state to state, by messages and by `allocation.allocate`; arguments as of `Adapters`."""

    def __init__(
        self,
        loader: Loader,
        *,
        room: Room,
        retry: float,
        rules: Rules,
        on_loaded: Callable[[Adapter, Proof, float], None],
        on_unloaded: Callable[[Adapter, str], None],
        name: str,
    ) -> None:
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.states: dict[str, State] = {}
        self.adapters: dict[str, Adapter] = {}
        self.queue = SlotQueue()
        self.usage = UsageTable()
        self._room = room
        self._retry = retry
        self._rules = rules
        self._on_loaded = on_loaded
        self._on_unloaded = on_unloaded
        self._name = name
        self._transfers = Transfers(loader, self.inbox.put_nowait)

    async def run(self) -> None:
        """Handle messages until cancelled."""
        try:
            while True:
                message = await self.inbox.get()
                self._handle(message)
                self._fetch_next()
                self._allocate(fill=not isinstance(message, Acquire | Release | Look))
                slot_metrics.count(self._name, self.states.values(), self._room)
        finally:
            self._transfers.cancel()

    def _handle(self, message: Message) -> None:  # noqa: PLR0912
        match message:
            case Acquire(adapter, granted, since):
                self._acquire(adapter, Ticket(granted, since))
            case Abandon(adapter_id, granted):
                was_waiting = self.queue.leave(adapter_id, granted)
                if not was_waiting and not granted.cancelled() and granted.exception() is None:
                    self._release(adapter_id)  # granted in the moment in which it was given up
            case Release(adapter_id):
                self._release(adapter_id)
            case Preload(adapter, priority):
                self._know(adapter)
                self.queue.want(adapter.adapter_id, priority, time.monotonic())
            case Retire(adapter_id, reason):
                self._retire(adapter_id, reason)
            case Evict():
                self._evict(message)
            case Expand(allowed):
                self._rules = replace(self._rules, expand=allowed)
            case Look():
                pass
            case Fetched(adapter_id, result):
                if isinstance(result, LoadFailed):
                    self._fail(adapter_id, result)
                else:
                    self.states[adapter_id] = Cached(result)
            case Bound(adapter_id, result, seconds):
                self._bound(adapter_id, result, seconds)
            case Unbound(adapter_id, reason):
                self._unbound(adapter_id, reason)

    def _know(self, adapter: Adapter) -> None:
        held = self.states.get(adapter.adapter_id)
        if held is None or (isinstance(held, Failed) and held.retry_at <= time.monotonic()):
            self.states[adapter.adapter_id] = Known()
            self.adapters[adapter.adapter_id] = adapter

    def _acquire(self, adapter: Adapter, ticket: Ticket) -> None:
        if ticket.granted.done():
            return
        self._know(adapter)
        adapter_id = adapter.adapter_id
        state = self.states[adapter_id]
        metrics.LEASES_REQUESTED.labels(self._name, FOUND_IN.get(type(state), "slot")).inc()
        match state:
            case Failed(failure, retry_at):
                ticket.granted.set_exception(failure.to_api(adapter_id, max(1.0, retry_at - time.monotonic())))
            case Loaded() | Draining():
                self._grant(adapter_id, ticket)
            case _:
                self.queue.join(adapter_id, ticket)
                late = ticket.since + self._rules.patience - time.monotonic()
                asyncio.get_running_loop().call_later(max(0.0, late), self.inbox.put_nowait, Look())

    def _grant(self, adapter_id: str, ticket: Ticket) -> None:
        if ticket.granted.done():
            return
        match self.states[adapter_id]:
            case Loaded() as held:
                self.states[adapter_id] = replace(
                    held, users=held.users + 1, last_used=time.monotonic(), loaded_for=Priority.REQUEST
                )
            case Draining() as held:
                self.states[adapter_id] = replace(held, users=held.users + 1)
            case other:
                raise AssertionError(f"{adapter_id} was granted while {other}")
        self.usage.used(adapter_id)
        ticket.granted.set_result(None)

    def _release(self, adapter_id: str) -> None:
        match self.states.get(adapter_id):
            case Loaded() as held:
                self.states[adapter_id] = replace(held, users=held.users - 1)
            case Yielding() as held:
                self.states[adapter_id] = replace(held, users=held.users - 1)
                if held.users == 1:
                    self._unload(adapter_id, held.file, "gave way", gone=False)
            case Draining(file, reason, users) as held:
                self.states[adapter_id] = replace(held, users=users - 1)
                if users == 1:
                    self._unload(adapter_id, file, reason, gone=True)
            case other:
                raise AssertionError(f"{adapter_id} was released while {other}")

    def _retire(self, adapter_id: str, reason: str) -> None:
        self.queue.unwant(adapter_id)
        match self.states.get(adapter_id):
            case Loaded(file=file, users=0):
                self._unload(adapter_id, file, reason, gone=True)
            case Loaded(file=file, users=users) | Yielding(file=file, users=users):
                self.states[adapter_id] = Draining(file, reason, users)
            case Known() | Cached() | Failed() if not self.queue.waiting(adapter_id):
                self._forget(adapter_id)
            case _:
                # On its way in for a request that was resolved before: least recently used takes it out.
                pass

    def _evict(self, message: Evict) -> None:
        before = time.monotonic() - message.idle_for
        leaving = [
            (adapter_id, state.file)
            for adapter_id, state in self.states.items()
            if isinstance(state, Loaded)
            and state.users == 0
            and state.last_used <= before
            and adapter_id not in self.queue.pinned
            and (message.only is None or adapter_id in message.only)
        ]
        for adapter_id, file in leaving:
            self.queue.unwant(adapter_id)  # or it would come back at once
            self._unload(adapter_id, file, message.reason, gone=False)
        if not message.leaving.done():
            message.leaving.set_result(tuple(adapter_id for adapter_id, _ in leaving))

    def _fail(self, adapter_id: str, failure: LoadFailed) -> None:
        log.warning("adapter_failed", adapter_id=adapter_id, code=failure.code, reason=failure.reason)
        metrics.FAILED.labels(self._name, failure.code).inc()
        wait = min(1.0, self._retry) if failure.transient else self._retry
        self.states[adapter_id] = Failed(failure, time.monotonic() + wait)
        wanted = self.queue.preloaded(adapter_id)
        if failure.transient and wanted is not None:
            # It may not be requested for long, yet it is to be there when it is.
            again = Preload(self.adapters[adapter_id], wanted)
            asyncio.get_running_loop().call_later(wait, self.inbox.put_nowait, again)
        for ticket in self.queue.take(adapter_id):
            if not ticket.granted.done():
                ticket.granted.set_exception(failure.to_api(adapter_id, wait))

    def _bound(self, adapter_id: str, result: Proof | LoadFailed, seconds: float) -> None:
        held = self.states[adapter_id]
        if isinstance(result, LoadFailed) and result.code == ARTIFACT_GONE:
            self.states[adapter_id] = Known()  # the disk cache was full of others: it is fetched again
            return
        if isinstance(result, LoadFailed):
            self._fail(adapter_id, result)
            return
        if not isinstance(held, Loading):
            raise AssertionError(f"{adapter_id} was bound while {held}")
        loaded_for, _ = self.queue.rank(adapter_id)
        self.states[adapter_id] = Loaded(held.file, result, last_used=time.monotonic(), loaded_for=loaded_for)
        self.queue.loaded(adapter_id)
        self.usage.loaded(adapter_id)
        metrics.LOADED.labels(self._name).inc()
        metrics.LOAD_SECONDS.labels(self._name).observe(seconds)
        self._on_loaded(self.adapters[adapter_id], result, seconds)
        for ticket in self.queue.take(adapter_id):
            self._grant(adapter_id, ticket)

    def _unbound(self, adapter_id: str, reason: str) -> None:
        metrics.UNLOADED.labels(self._name, reason).inc()
        self._on_unloaded(self.adapters[adapter_id], reason)
        held = self.states[adapter_id]
        if not isinstance(held, Unloading):
            raise AssertionError(f"{adapter_id} was unbound while {held}")
        self.states[adapter_id] = Cached(held.file)
        if held.gone and not self.queue.waiting(adapter_id):
            self._forget(adapter_id)

    def _forget(self, adapter_id: str) -> None:
        self.states.pop(adapter_id, None)
        self.adapters.pop(adapter_id, None)
        self.queue.forget(adapter_id)

    def _fetch_next(self) -> None:
        """Starts downloads, those that requests wait for first."""
        known = [one for one, state in self.states.items() if isinstance(state, Known)]
        known.sort(key=self.queue.rank)
        fetching = sum(isinstance(state, Fetching) for state in self.states.values())
        for adapter_id in known[: max(0, FETCHES - fetching)]:
            self.states[adapter_id] = Fetching()
            self._transfers.fetch(self.adapters[adapter_id])

    def _allocate(self, *, fill: bool) -> None:
        """Start the loads and unloads that `allocation.allocate` decides on.

        fill: whether what is merely wanted while a slot is free may fit that did not before; it may be all the fleet.
        """
        now = time.monotonic()
        self.queue.expire(now)
        held = {one: state for one, state in self.states.items() if isinstance(state, IN_SLOT)}
        free = self._room - Room.of(state.file.size for state in held.values())
        cached = {one: state.file for one in self.queue.pressing if isinstance(state := self.states.get(one), Cached)}
        if fill and free.holds(1):
            filling = (one for one in self.queue.filling() if one not in cached)
            ready = ((one, state.file) for one in filling if isinstance(state := self.states.get(one), Cached))
            cached |= islice(ready, free.slots)
        moves = allocate(
            [
                Candidate(one, self.adapters[one].domain, *self.queue.rank(one), file.size)
                for one, file in cached.items()
            ],
            [self._occupant(one, state) for one, state in held.items()],
            free,
            Room.of(state.file.size for state in held.values() if isinstance(state, Unloading)),
            Room.of(state.file.size for state in held.values() if isinstance(state, Yielding)),
            now,
            self._rules,
        )
        for adapter_id in moves.load:
            self.states[adapter_id] = Loading(cached[adapter_id])
            self._transfers.load(self.adapters[adapter_id], cached[adapter_id])
        for adapter_id, state in held.items():
            match state:
                case Loaded(file=file) if adapter_id in moves.evict:
                    self._unload(adapter_id, file, "evicted", gone=False)
                case Loaded(file, proof, last_used, users) if adapter_id in moves.give_way:
                    self.states[adapter_id] = Yielding(file, proof, last_used, users)
                case Yielding(file, proof, last_used, users) if not moves.short:
                    self.states[adapter_id] = Loaded(file, proof, last_used, users)
                    for ticket in self.queue.take(adapter_id):
                        self._grant(adapter_id, ticket)
                case _:
                    pass

    def _occupant(self, adapter_id: str, state: InSlot) -> Occupant:
        domain, size = self.adapters[adapter_id].domain, state.file.size
        if not isinstance(state, Loaded) or adapter_id in self.queue.pinned:
            return Occupant(adapter_id, domain, size, 0.0)
        # What merely filled a free slot and was never used is the first to leave.
        last_used = 0.0 if state.loaded_for is Priority.ACTIVATION else state.last_used
        return Occupant(adapter_id, domain, size, last_used, idle=state.users == 0, busy=state.users > 0)

    def _unload(self, adapter_id: str, file: OnDisk, reason: str, *, gone: bool) -> None:
        self.states[adapter_id] = Unloading(file, gone)
        self._transfers.unload(adapter_id, reason)
