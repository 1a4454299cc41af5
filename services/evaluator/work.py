"""The fenced writes of long work that an evaluation needs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from fleet_kit.transaction import Transaction


class Held(Protocol):
    """A lease that is held (fleet_kit.leased_task.LeasedTask)."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]: ...
    def finish(self) -> AbstractAsyncContextManager[Transaction]: ...
    async def progress(self, tx: Transaction) -> None: ...
