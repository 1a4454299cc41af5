"""Runs the loader's steps beside the scheduler (`scheduler.py`), which gets a message at the end of each."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Protocol

import structlog

from fleet_events.v1 import Adapter
from services.inference.slots.messages import Bound, Fetched, Message, Unbound
from services.inference.slots.states import LoadFailed, OnDisk, Proof

log = structlog.get_logger()


class Loader(Protocol):
    """Moves an adapter's bytes; `loader.py` is the real one. Every method raises `LoadFailed`."""

    async def fetch(self, adapter: Adapter) -> OnDisk: ...
    async def load(self, adapter: Adapter, file: OnDisk) -> Proof: ...
    async def unload(self, adapter_id: str) -> None: ...


class Transfers:
    """Starts the steps; each ends with exactly one message to `send`, whether it succeeded or failed."""

    def __init__(self, loader: Loader, send: Callable[[Message], None]) -> None:
        self._loader = loader
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()

    def fetch(self, adapter: Adapter) -> None:
        """From the object store to disk."""
        self._start(self._fetch(adapter))

    def load(self, adapter: Adapter, file: OnDisk) -> None:
        """From disk into a slot."""
        self._start(self._load(adapter, file))

    def unload(self, adapter_id: str, reason: str) -> None:
        """Out of its slot."""
        self._start(self._unload(adapter_id, reason))

    def cancel(self) -> None:
        """All that are under way."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, adapter: Adapter) -> None:
        try:
            result: OnDisk | LoadFailed = await self._loader.fetch(adapter)
        except LoadFailed as failure:
            result = failure
        except Exception as error:  # a state must never be left hanging: its requests would wait for nothing
            log.exception("fetch_failed", adapter_id=adapter.adapter_id)
            result = LoadFailed("fetch_failed", f"{type(error).__name__}: {error}", transient=True)
        self._send(Fetched(adapter.adapter_id, result))

    async def _load(self, adapter: Adapter, file: OnDisk) -> None:
        begun = time.monotonic()
        try:
            result: Proof | LoadFailed = await self._loader.load(adapter, file)
        except LoadFailed as failure:
            result = failure
        except Exception as error:  # as above
            log.exception("load_failed", adapter_id=adapter.adapter_id)
            result = LoadFailed("load_failed", f"{type(error).__name__}: {error}")
        self._send(Bound(adapter.adapter_id, result, time.monotonic() - begun))

    async def _unload(self, adapter_id: str, reason: str) -> None:
        try:
            await self._loader.unload(adapter_id)
        finally:
            self._send(Unbound(adapter_id, reason))
