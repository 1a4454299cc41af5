"""Levels of memory pressure, from the readings of `fleet_kit.memory`."""

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """low: adapters may be preloaded. medium: nothing is brought in but what requests need. high: adapters that have
    been idle for long are evicted. critical: all are but those in use and pinned ones."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Ladder:
    """The share of memory from which each level begins. A level is left `margin` below where it begins, so that
    what is given back by its own actions does not make it come and go."""

    medium: float = 0.75
    high: float = 0.85
    critical: float = 0.95
    margin: float = 0.05

    def step(self, level: Level, share: float) -> Level:
        """The level after a reading, from the one before."""
        begins = {Level.MEDIUM: self.medium, Level.HIGH: self.high, Level.CRITICAL: self.critical}
        reached = max((one for one, at in begins.items() if share >= at), default=Level.LOW)
        kept = max((one for one, at in begins.items() if share >= at - self.margin), default=Level.LOW)
        return max(reached, min(level, kept))
