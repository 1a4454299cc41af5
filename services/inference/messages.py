"""What the owner task of `adapters.py` is told."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fleet_events.v1 import Adapter

from .states import LoadFailed, Proof


@dataclass(frozen=True, slots=True)
class Acquire:
    """A request wants to run on the adapter."""

    adapter: Adapter
    granted: asyncio.Future[None]


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
    """Load it while a slot is free."""

    adapter: Adapter


@dataclass(frozen=True, slots=True)
class Retire:
    """Unload it when nobody uses it."""

    adapter_id: str
    reason: str


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


Message = Acquire | Abandon | Release | Preload | Retire | Fetched | Bound | Unbound
