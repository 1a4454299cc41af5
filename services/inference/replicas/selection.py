"""Several replicas of inference: which of them answers a request. Pure.

Rendezvous hashing (Thaler and Ravishankar 1998) gives each adapter its replica without any agreement: everybody who
sees the same replicas comes to the same one, and when one goes, its adapters alone move. Loads are bounded as in
consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018); a replica's share is that of its rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from math import ceil

from pydantic import BaseModel, ConfigDict, Field

URL = r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$"
"""Scheme, host (IPv6 in brackets) and port: the path is ours, and there is no user or password in it."""
NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
"""A key of the bucket and a header's value."""


class Serving(BaseModel):
    """One base model of a replica: adapters in its slots (or on their way into one), and its load in requests."""

    model_config = ConfigDict(frozen=True)

    adapters: frozenset[str]
    running: int = Field(ge=0)
    waiting: int = Field(ge=0)
    rows: int = Field(ge=1)
    """Requests that it decodes together at most."""

    @property
    def load(self) -> int:
        return self.running + self.waiting


class Replica(BaseModel):
    """What a replica announces of itself."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=NAME)
    url: str = Field(pattern=URL)
    """Where other replicas reach it."""
    started: float
    """Unix seconds."""
    draining: bool = False
    """It takes no new requests."""
    serves: dict[str, Serving]
    """Base model revision → what it has of it."""

    def takes(self, revision: str) -> bool:
        """Whether it takes requests for a base model."""
        return revision in self.serves and not self.draining


class Reason(StrEnum):
    """Why a request is answered where it is."""

    HERE = "here"
    HOLDER = "holder"
    """The other one has the adapter in a slot."""
    PLACED = "placed"
    """No replica with room holds the adapter, and the other one is its replica."""
    OVERLOADED = "overloaded"
    """This one has the adapter, or needs none, but no room."""
    DRAINING = "draining"
    """This one takes no new requests."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request is answered. `held`: its adapters are in slots there."""

    replica: Replica
    reason: Reason
    held: bool


def place(
    adapters: Collection[str], revision: str, replicas: Collection[Replica], factor: float = 1.25
) -> Replica | None:
    """The replica whose request this is, the same for everybody with the same view; None if none takes it.

    Of those with room (see `with_room`): who holds most of the adapters, among these the highest random weight. A
    request of the base model alone goes to the least loaded, as there is nothing to be near to.

    Args:
        adapters: ids; several for a weighted set, none for the base model alone.
        revision: of their base model.
        replicas: all that are alive.
        factor: how far above its share of the load a replica may be, at least 1.
    """
    return _preferred(adapters, revision, with_room(revision, replicas, factor))


def with_room(revision: str, replicas: Collection[Replica], factor: float) -> list[Replica]:
    """Replicas that take requests of the base model, and with one more stay within `factor` times their share.

    One with a free row has room beyond its share: the request starts at once there, and elsewhere its adapter would
    first have to be loaded. Shares add up to more than the load, so one has room if any takes requests.
    """
    able = [(one, one.serves[revision]) for one in replicas if one.takes(revision)]
    load = sum(serving.load for _, serving in able) + 1
    rows = sum(serving.rows for _, serving in able)
    return [one for one, mine in able if mine.load < max(mine.rows, ceil(factor * load * mine.rows / rows))]


def decide(
    adapters: Collection[str], revision: str, own: Replica, others: Sequence[Replica], factor: float = 1.25
) -> Decision:
    """Where a request that arrived at `own` is answered.

    Who holds all of the adapters and has room answers itself, even where `place` names another holder: the hop
    would gain nothing. So adapters that all replicas hold are served wherever the requests arrive.
    """
    free = with_room(revision, (own, *others), factor)
    near = own.takes(revision) and own.serves[revision].adapters.issuperset(adapters)
    if near and any(one is own for one in free):
        return Decision(own, Reason.HERE, held=True)
    chosen = _preferred(adapters, revision, free)
    if chosen is None or chosen is own:
        return Decision(own, Reason.HERE, held=near)
    held = chosen.serves[revision].adapters.issuperset(adapters)
    if own.draining:
        reason = Reason.DRAINING
    elif near:
        reason = Reason.OVERLOADED
    else:
        reason = Reason.HOLDER if held else Reason.PLACED
    return Decision(chosen, reason, held)


def _preferred(adapters: Collection[str], revision: str, free: Collection[Replica]) -> Replica | None:
    key = "+".join(sorted(adapters))

    def preference(one: Replica) -> tuple[float, bytes]:
        serving = one.serves[revision]
        nearness = len(serving.adapters.intersection(adapters)) if adapters else -serving.load / serving.rows
        return nearness, blake2b(f"{key}\n{one.name}".encode(), digest_size=8).digest()

    return max(free, key=preference, default=None)
