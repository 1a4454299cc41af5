"""Which adapters go into slots next, which leave them and which have to give way. Pure.

An adapter takes one slot, and memory by its size. Fair by domain: of requests that wait, the one whose domain holds
the least memory goes first, and room is made by the domain that holds the most, its least recently used first. No
request starves: one that has waited for `patience` seconds goes before all that came after it, of any domain, nothing
else takes what is free before it, and if all is in use then, adapters stop taking new requests until they have left.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self


class Priority(IntEnum):
    """Why an adapter is to be in a slot; the smaller goes first."""

    REQUEST = 0
    """A request waits for it."""
    PINNED = 1
    """It is never evicted, and idle ones leave for it."""
    WORKFLOW = 2
    """A workflow was named that is going to use it, or an operator requests it; idle ones leave for it."""
    PREDICTION = 3
    """It is likely to be requested next."""
    ACTIVATION = 4
    """It is active: wanted for as long as a slot is free."""
    DISK = 5
    """Wanted on disk only."""


@dataclass(frozen=True, slots=True)
class Room:
    """Room for adapters: slots, and their memory, in which an adapter takes its `size`."""

    slots: int = 0
    memory: int = 0

    def holds(self, size: int) -> bool:
        """Is it enough for an adapter of this size?"""
        return self.slots >= 1 and self.memory >= size

    def __add__(self, other: Self) -> Self:
        return type(self)(self.slots + other.slots, self.memory + other.memory)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.slots - other.slots, self.memory - other.memory)

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Self:
        """What adapters of these sizes take."""
        return sum((cls(1, size) for size in sizes), cls())


@dataclass(frozen=True, slots=True)
class Candidate:
    """An adapter on disk that is wanted in a slot since then (monotonic s)."""

    adapter_id: str
    domain: str
    priority: Priority
    since: float
    size: int


@dataclass(frozen=True, slots=True)
class Occupant:
    """What a slot holds. `idle`: it may be evicted; `busy`: it may have to give way; else it is on its way."""

    adapter_id: str
    domain: str
    size: int
    last_used: float
    idle: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """`patience`: seconds after which a request that waits goes first.

    `replace_idle`: predictions may take the slots of idle adapters, not only free ones. `expand`: anything but
    requests and pinned adapters is brought in.
    """

    patience: float = 2.0
    replace_idle: bool = False
    expand: bool = True


@dataclass(frozen=True, slots=True)
class Allocation:
    """What to do now. `short`: requests wait that get no slot by this."""

    load: tuple[str, ...] = ()
    evict: tuple[str, ...] = ()
    give_way: tuple[str, ...] = ()
    short: bool = False


def allocate(  # noqa: PLR0917
    candidates: Sequence[Candidate],
    held: Sequence[Occupant],
    free: Room,
    leaving: Room,
    yielding: Room,
    now: float,
    rules: Rules,
) -> Allocation:
    """The next moves.

    `free`: room that is empty. `leaving`: that is being emptied. `yielding`: that will be once requests are done.
    """
    shares: Counter[str] = Counter()
    for occupant in held:
        shares[occupant.domain] += occupant.size
    load: list[str] = []
    behind: list[Candidate] = []
    for one in _order(candidates, shares, now, rules):
        # Late requests are in front of all others, and requests of what nobody waits for.
        waits = behind and (one.priority is not Priority.REQUEST or _late(behind[0], now, rules))
        if waits or not free.holds(one.size):
            behind.append(one)
            continue
        load.append(one.adapter_id)
        free -= Room(1, one.size)
        shares[one.domain] += one.size
    # What is free or on its way out already serves the first of those that are left.
    making = _Making(list(held), shares, free + leaving, yielding)
    short = False
    for one in behind:
        if making.evict_for(one, rules):
            continue
        short = short or one.priority is Priority.REQUEST
        if _late(one, now, rules):
            making.give_way_for(one)
    return Allocation(tuple(load), tuple(making.evict), tuple(making.give_way), short)


class _Making:
    """Makes room for candidates, one after another. supply: what is there for them; coming: what will be."""

    def __init__(self, held: list[Occupant], shares: Counter[str], supply: Room, yielding: Room) -> None:
        self.evict: list[str] = []
        self.give_way: list[str] = []
        self._held, self._shares = held, shares
        self._supply = supply
        self._coming = yielding
        # Sizes for which there was not enough: there is never more for those that come later.
        self._no_idle_from = self._no_busy_from = math.inf

    def evict_for(self, one: Candidate, rules: Rules) -> bool:
        """Take room for it, of idle ones where there is not enough; nothing is changed where that does not suffice."""
        if one.size >= self._no_idle_from:
            return False
        idle = [other for other in self._held if other.idle and _may_replace(one, other, rules)]
        victims, supply = self._victims(idle, self._supply, one.size)
        if not supply.holds(one.size):
            if one.priority is Priority.REQUEST:
                self._no_idle_from = one.size
            return False
        self._leave(victims, self.evict)
        self._supply = supply - Room(1, one.size)
        return True

    def give_way_for(self, one: Candidate) -> None:
        """Have as many give way as it lacks when all that yield already have left, and idle ones leave at once."""
        if one.size >= self._no_busy_from:
            return
        coming = self._supply + self._coming
        idle = [other for other in self._held if other.idle]
        leaving, coming = self._victims(idle, coming, one.size)
        victims, coming = self._victims([other for other in self._held if other.busy], coming, one.size)
        if not coming.holds(one.size):
            self._no_busy_from = one.size
            return
        self._leave(leaving, self.evict)
        self._leave(victims, self.give_way)
        self._supply, self._coming = Room(), coming - Room(1, one.size)

    def _victims(self, held: list[Occupant], room: Room, size: int) -> tuple[list[Occupant], Room]:
        """Which of these leave until there is room for an adapter of this size, or all have; what there is then."""
        victims: list[Occupant] = []
        left, shares = list(held), self._shares.copy()
        while left and not room.holds(size):
            victim = min(left, key=lambda other: (-shares[other.domain], other.last_used))
            left.remove(victim)
            victims.append(victim)
            shares[victim.domain] -= victim.size
            room += Room(1, victim.size)
        return victims, room

    def _leave(self, victims: list[Occupant], to: list[str]) -> None:
        for victim in victims:
            self._held.remove(victim)
            self._shares[victim.domain] -= victim.size
            to.append(victim.adapter_id)


def _late(one: Candidate, now: float, rules: Rules) -> bool:
    return one.priority is Priority.REQUEST and now - one.since >= rules.patience


def _order(candidates: Sequence[Candidate], shares: Counter[str], now: float, rules: Rules) -> list[Candidate]:
    requests = [one for one in candidates if one.priority is Priority.REQUEST]
    late = sorted((one for one in requests if _late(one, now, rules)), key=lambda one: one.since)
    early = [one for one in requests if not _late(one, now, rules)]
    wanted = sorted(
        (
            one
            for one in candidates
            if one.priority is Priority.PINNED or (rules.expand and Priority.PINNED < one.priority < Priority.DISK)
        ),
        key=lambda one: (one.priority, one.since),
    )
    shares = shares.copy()
    for one in late:
        shares[one.domain] += one.size
    fair: list[Candidate] = []
    while early:
        first = min(early, key=lambda one: (shares[one.domain], one.since))
        early.remove(first)
        shares[first.domain] += first.size
        fair.append(first)
    return [*late, *fair, *wanted]


def _may_replace(one: Candidate, idle: Occupant, rules: Rules) -> bool:
    match one.priority:
        case Priority.REQUEST | Priority.PINNED:
            return True
        case Priority.WORKFLOW:
            # What has come in or was requested since then is as likely to be needed: nothing is gained by a swap.
            return idle.last_used < one.since
        case Priority.PREDICTION:
            return rules.replace_idle and idle.last_used < one.since
        case _:
            return False
