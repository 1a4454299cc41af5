"""States of an adapter in this process. `scheduler.py` alone moves one to another.

known → fetching → cached → loading → loaded → draining → unloading → (cached | gone)
loaded → yielding → unloading, or back to loaded when its slot is no longer needed
from fetching and loading also → failed, and from failed → known when it may be tried again
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.inference.errors import ApiError, Busy, CannotServe
from services.inference.slots.allocation import Priority


@dataclass(frozen=True, slots=True)
class OnDisk:
    """An artifact's file, its digest checked.

    size: what it takes of the memory of slots: its rank where adapters share it, 1 where each slot has its own.
    """

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What showed that a loaded adapter has its effect."""

    modules_bound: int
    max_delta: float
    """Largest absolute change of the probe prompt's logits."""
    compared: bool
    """Whether the trainer's recorded probe was there to compare with."""
    storage: str = "F16"
    """Level of compression that it is served with (`lora_core.profiles`)."""
    agreement: float | None = None
    """Share of positions at which the compressed adapter prefers the original's token."""
    not_compressed: str = ""
    """Why it is served as it was trained though its profile would compress it."""


ARTIFACT_GONE = "artifact_gone"
"""Code of `LoadFailed`: the file has left the disk since it was fetched."""


class LoadFailed(Exception):
    """An adapter that cannot serve. `transient`: the same attempt may work later."""

    def __init__(self, code: str, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.transient = transient

    def to_api(self, adapter_id: str, retry_after: float) -> ApiError:
        """What a request for it gets: never an answer of the base model."""
        message = f"adapter {adapter_id!r} cannot serve: {self.reason}"
        if self.transient:
            return Busy(message, code=self.code, param="model", retry_after=retry_after)
        return CannotServe(message, code=self.code, param="model")


@dataclass(frozen=True, slots=True)
class Known:
    """Waits for its turn to be fetched."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """On its way from the object store."""


@dataclass(frozen=True, slots=True)
class Cached:
    """Verified on disk, in no slot."""

    file: OnDisk


@dataclass(frozen=True, slots=True)
class Loading:
    """On its way into a slot; not servable before its effect is proved."""

    file: OnDisk


@dataclass(frozen=True, slots=True)
class Loaded:
    """In a slot and proved. `users` requests run on it; it was last requested at `last_used` (monotonic s)."""

    file: OnDisk
    proof: Proof
    last_used: float
    users: int = 0
    loaded_for: Priority = Priority.REQUEST
    """Why it was brought in; a request from its first use on."""


@dataclass(frozen=True, slots=True)
class Yielding:
    """As `Loaded`, but takes no new requests: it leaves its slot to one that has waited for too long."""

    file: OnDisk
    proof: Proof
    last_used: float
    users: int


@dataclass(frozen=True, slots=True)
class Draining:
    """Takes no new versions of its name; leaves its slot when the last of `users` is done."""

    file: OnDisk
    reason: str
    users: int


@dataclass(frozen=True, slots=True)
class Unloading:
    """Leaving its slot."""

    file: OnDisk
    gone: bool
    """Forgotten afterwards, instead of staying cached."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Cannot serve, and why; may be tried again at `retry_at` (monotonic s)."""

    failure: LoadFailed
    retry_at: float


InSlot = Loading | Loaded | Yielding | Draining | Unloading
State = Known | Fetching | Cached | InSlot | Failed
IN_SLOT = (Loading, Loaded, Yielding, Draining, Unloading)
FOUND_IN: Mapping[type[State], str] = {
    Known: "store",
    Fetching: "store",
    Cached: "disk",
    Loading: "disk",
    Failed: "failed",
}
"""Where a request finds its adapter, in metrics; in a slot where none of these."""
