"""What adapters take of a base model's slots, as metrics."""

from collections import Counter
from collections.abc import Iterable

from services.inference import metrics
from services.inference.slots.allocation import Room
from services.inference.slots.states import IN_SLOT, State


def count(base_model: str, states: Iterable[State], room: Room) -> None:
    """Set the gauges to this moment's states. room: for all adapters together."""
    held = [state for state in states if isinstance(state, IN_SLOT)]
    kinds = Counter(type(state) for state in held)
    for kind in IN_SLOT:
        metrics.SLOTS.labels(base_model, kind.__name__.lower()).set(kinds[kind])
    taken = Room.of(state.file.size for state in held)
    metrics.SLOT_MEMORY.labels(base_model).set(taken.memory / room.memory)
