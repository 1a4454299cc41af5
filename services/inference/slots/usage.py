"""How often and when adapters were requested; survives their leaving the slot."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one adapter in this process. `last_used`: Unix time in seconds, None if it never was."""

    uses: int = 0
    loads: int = 0
    last_used: float | None = None


class UsageTable:
    """Usage of at most `limit` adapters; who was touched longest ago is forgotten first."""

    def __init__(self, limit: int = 10_000, now: Callable[[], float] = time.time) -> None:
        self._limit, self._now = limit, now
        self._rows: OrderedDict[str, Usage] = OrderedDict()

    def of(self, adapter_id: str) -> Usage:
        """What is known of it."""
        return self._rows.get(adapter_id, Usage())

    def used(self, adapter_id: str) -> None:
        """A request runs on it."""
        held = self.of(adapter_id)
        self._put(adapter_id, replace(held, uses=held.uses + 1, last_used=self._now()))

    def loaded(self, adapter_id: str) -> None:
        """It came into a slot."""
        held = self.of(adapter_id)
        self._put(adapter_id, replace(held, loads=held.loads + 1))

    def _put(self, adapter_id: str, usage: Usage) -> None:
        self._rows[adapter_id] = usage
        self._rows.move_to_end(adapter_id)
        if len(self._rows) > self._limit:
            self._rows.popitem(last=False)
