"""What rules look at: facts about a domain at one moment, as values."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class ActiveVersion:
    """The version that answers for the family that the rules train.

    `learned_until`: when its data set was frozen; for one that was not trained here, when it was activated.
    """

    adapter_id: str
    base_revision: str
    learned_until: datetime
    trained_here: bool = True


@dataclass(frozen=True)
class Observed:
    """A number and when it was recorded."""

    at: datetime
    value: float


@dataclass(frozen=True)
class Distances:
    """Distances of prompts from the active version's training prompts, 0 to 2: recorded ones in order, held-out ones.

    `unmeasured`: why there are none; empty where they were measured.
    """

    recorded: tuple[Observed, ...] = ()
    held_out: tuple[float, ...] = ()
    unmeasured: str = ""


@dataclass(frozen=True)
class Spent:
    """An earlier firing: when, for how many optimizer steps, and for how many tokens."""

    at: datetime
    steps: int
    tokens: int = 0


@dataclass(frozen=True)
class Situation:
    """A domain when its rules are evaluated. `deactivated`: its family had an active version, and has none now.

    `new_samples`: usable ones recorded or changed after `evidence_since`. `planned_steps`, `planned_tokens`: optimizer
    steps of a job on all usable ones, and their tokens. `ratings`: those of the active version in order, 1 to 5.
    `spent`: firings of the last 24 hours. `handled`: keys of causes that a firing has answered. `open_job`: an earlier
    firing's job that has not ended. `erased`: erasures of records that the active version learned from, or that took
    the family out of service.
    `to_replace`: those of them that asked for a version without the records, whatever the rules have.
    `not_rebuilt`: why the recipe's data set that it learned from cannot be trained on again yet.
    """

    now: datetime
    rules_since: datetime
    base_revision: str
    active: ActiveVersion | None = None
    deactivated: bool = False
    new_samples: int = 0
    planned_steps: int = 0
    planned_tokens: int = 0
    ratings: tuple[Observed, ...] = ()
    distances: Distances = Distances()
    last_firing: datetime | None = None
    open_job: str = ""
    spent: tuple[Spent, ...] = ()
    handled: frozenset[str] = field(default_factory=frozenset)
    erased: tuple[str, ...] = ()
    to_replace: frozenset[str] = field(default_factory=frozenset)
    not_rebuilt: tuple[str, str] | None = None

    @property
    def evidence_since(self) -> datetime | None:
        """What was recorded until then, a training has learned from or was requested for; None for nothing yet."""
        known = [
            one for one in (self.active.learned_until if self.active else None, self.last_firing) if one is not None
        ]
        return max(known, default=None)
