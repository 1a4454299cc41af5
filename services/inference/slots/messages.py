"""What the owner task (`owner.py`) is told."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fleet_events.v1 import Adapter
from services.inference.slots.placement import Priority
from services.inference.slots.states import LoadFailed, Proof


@dataclass(frozen=True, slots=True)
class Acquire:
    """A request wants to run on the adapter; in the queue it counts as waiting since then (monotonic s)."""

    adapter: Adapter
    granted: asyncio.Future[None]
    since: float


@dataclass(frozen=True, slots=True)
class Abandon:
    """It waits no longer."""

    adapter_id: str
    granted: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Release:
    """It is done."""

    adapter_id: str


@dataclass(frozen=True, slots=True)
class Preload:
    """Load it though no request waits for it."""

    adapter: Adapter
    priority: Priority


@dataclass(frozen=True, slots=True)
class Retire:
    """Unload it when nobody uses it."""

    adapter_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Idle adapters leave their slots: those not used for `idle_for` seconds, of `only` these where given."""

    idle_for: float
    only: frozenset[str] | None
    reason: str
    leaving: asyncio.Future[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Expand:
    """Whether anything but requests and pinned adapters may be brought into slots from now on."""

    allowed: bool


@dataclass(frozen=True, slots=True)
class Look:
    """Time has passed: a request may have become late."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Its download ended."""

    adapter_id: str
    result: Path | LoadFailed


@dataclass(frozen=True, slots=True)
class Bound:
    """Its way into a slot ended."""

    adapter_id: str
    result: Proof | LoadFailed
    seconds: float


@dataclass(frozen=True, slots=True)
class Unbound:
    """It has left its slot."""

    adapter_id: str
    reason: str


Message = Acquire | Abandon | Release | Preload | Retire | Evict | Expand | Look | Fetched | Bound | Unbound
