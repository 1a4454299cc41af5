"""Messages to the scheduler (`scheduler.py`)."""

import asyncio
from dataclasses import dataclass

from fleet_events.v1 import Adapter
from services.inference.slots.allocation import Priority
from services.inference.slots.states import LoadFailed, OnDisk, Proof


@dataclass(frozen=True, slots=True)
class Acquire:
    """A request needs the adapter; the queue counts it as waiting since then (monotonic s)."""

    adapter: Adapter
    granted: asyncio.Future[None]
    since: float


@dataclass(frozen=True, slots=True)
class Abandon:
    """A request that waited for the adapter has given up."""

    adapter_id: str
    granted: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Release:
    """A request that used the adapter has ended."""

    adapter_id: str


@dataclass(frozen=True, slots=True)
class Preload:
    """Load the adapter although no request waits for it."""

    adapter: Adapter
    priority: Priority


@dataclass(frozen=True, slots=True)
class Retire:
    """Unload the adapter when no request uses it."""

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
    """A request's patience may have run out: allocate again."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The adapter's download ended."""

    adapter_id: str
    result: OnDisk | LoadFailed


@dataclass(frozen=True, slots=True)
class Bound:
    """Loading the adapter into a slot ended."""

    adapter_id: str
    result: Proof | LoadFailed
    seconds: float


@dataclass(frozen=True, slots=True)
class Unbound:
    """The adapter has left its slot."""

    adapter_id: str
    reason: str


Message = Acquire | Abandon | Release | Preload | Retire | Evict | Expand | Look | Fetched | Bound | Unbound
