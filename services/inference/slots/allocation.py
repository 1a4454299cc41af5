"""Which adapters go into slots next, which leave them and which have to give way. Pure.

Fair by domain: of requests that wait, the one whose domain holds the fewest slots goes first, and room is made by the
domain that holds the most, its least recently used first. No request starves: one that has waited for `patience`
seconds goes before all that came after it, of any domain, and if every slot is in use then, an adapter stops
taking new requests until it has left its slot.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


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
class Candidate:
    """An adapter on disk that is wanted in a slot since then (monotonic s)."""

    adapter_id: str
    domain: str
    priority: Priority
    since: float


@dataclass(frozen=True, slots=True)
class Occupant:
    """What a slot holds. `idle`: it may be evicted; `busy`: it may have to give way; else it is on its way."""

    adapter_id: str
    domain: str
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
    free: int,
    leaving: int,
    yielding: int,
    now: float,
    rules: Rules,
) -> Allocation:
    """The next moves.

    `free` slots are empty, `leaving` are being emptied, `yielding` will be once their requests are done.
    """
    shares = Counter(one.domain for one in held)
    order = _order(candidates, shares, now, rules)
    load, behind = order[: max(0, free)], order[max(0, free) :]
    for one in load:
        shares[one.domain] += 1
    requests = [one for one in behind if one.priority is Priority.REQUEST]
    idle, busy = [one for one in held if one.idle], [one for one in held if one.busy]
    evict: list[str] = []
    give_way: list[str] = []
    # Slots that are on their way out already serve the first of those that are left.
    for number, one in enumerate(behind[max(0, leaving) :], max(0, leaving)):
        if victim := _victim([other for other in idle if _may_replace(one, other, rules)], shares):
            idle.remove(victim)
            evict.append(victim.adapter_id)
        elif (
            one.priority is Priority.REQUEST
            and now - one.since >= rules.patience
            and number >= leaving + yielding + len(evict) + len(give_way)
            and (victim := _victim(busy, shares))
        ):
            busy.remove(victim)
            give_way.append(victim.adapter_id)
        else:
            continue
        shares[victim.domain] -= 1
    return Allocation(
        tuple(one.adapter_id for one in load),
        tuple(evict),
        tuple(give_way),
        short=len(requests) > leaving + len(evict),
    )


def _order(candidates: Sequence[Candidate], shares: Counter[str], now: float, rules: Rules) -> list[Candidate]:
    requests = [one for one in candidates if one.priority is Priority.REQUEST]
    late = sorted((one for one in requests if now - one.since >= rules.patience), key=lambda one: one.since)
    early = [one for one in requests if now - one.since < rules.patience]
    wanted = sorted(
        (
            one
            for one in candidates
            if one.priority is Priority.PINNED or (rules.expand and Priority.PINNED < one.priority < Priority.DISK)
        ),
        key=lambda one: (one.priority, one.since),
    )
    shares = shares + Counter(one.domain for one in late)
    fair: list[Candidate] = []
    while early:
        first = min(early, key=lambda one: (shares[one.domain], one.since))
        early.remove(first)
        shares[first.domain] += 1
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


def _victim(held: Sequence[Occupant], shares: Counter[str]) -> Occupant | None:
    return min(held, key=lambda one: (-shares[one.domain], one.last_used), default=None)
