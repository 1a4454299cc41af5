"""`gather`: adapters that are used at once are moved side by side, where a step reads them in few products."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from lora_core.slots.slot_bank import SlotBank

_LARGER = 2
"""A place whose adapter has more than so many times the rank is not taken: it would be copied too."""


class Placed(Protocol):
    """An adapter in a slot, and how many rows use it."""

    slot: int
    users: int


def gather(bank: SlotBank, coming: Placed, loaded: Iterable[Placed]) -> None:
    """Move an adapter that comes into use into the lowest slots, beside those in use that have its rank.

    coming: used by no row yet. loaded: all that may be moved while no row uses them; what else is in a slot stays.
    Used adapters so lie in little more slots than they are; one that lies there already stays where it is. Neighbours
    of one rank are one product, and adapters anywhere one product each: docs/decisions/0023 has what that costs.
    """
    if not bank.shared:
        return
    idle = {one.slot: one for one in loaded if not one.users}
    if (place := _place(bank, coming.slot, idle)) is not None:
        bank.exchange(coming.slot, place)
        if (other := idle.get(place)) is not None:
            other.slot = coming.slot
        coming.slot = place


def _place(bank: SlotBank, slot: int, idle: Mapping[int, Placed]) -> int | None:
    ranks = bank.held_ranks
    used = {place for place, rank in enumerate(ranks) if rank and place not in idle}
    bound = (len(used) + 1) * 5 // 4 + 1
    if slot < bound or not used:
        return None
    own = ranks[slot]

    def neighbours(place: int) -> int:
        return sum(side in used and ranks[side] == own for side in (place - 1, place + 1))

    places = (place for place in range(bound) if place not in used and ranks[place] <= _LARGER * own)
    return max(places, key=lambda place: (neighbours(place), not ranks[place], -place), default=None)
