"""What is known of each version in numbers: evaluations, ratings, preferences. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.registry.family import Adapter, Evaluation
from services.registry.store.metrics import OwnMetric
from services.registry.store.usage import Feedback, Usage


@dataclass(frozen=True, slots=True)
class Evidence:
    """A version with everything that a comparison looks at. `evaluations` come oldest first."""

    adapter: Adapter
    evaluations: tuple[Evaluation, ...]
    feedback: Feedback
    usage: Usage
    own_metrics: Mapping[str, OwnMetric] = field(default_factory=dict)

    @property
    def adapter_id(self) -> str:
        return self.adapter.adapter_id


@dataclass(frozen=True, slots=True)
class Tally:
    """How often the first of two versions was preferred to the second, how often neither was, how often the second."""

    wins: int = 0
    ties: int = 0
    losses: int = 0

    @property
    def turned(self) -> Tally:
        """The same, seen from the second version."""
        return Tally(self.losses, self.ties, self.wins)


Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Preferences:
    """Tallies by pair of adapter ids, from people and from judges that compared answer with answer."""

    people: Mapping[Pair, Tally] = field(default_factory=dict)
    judge: Mapping[Pair, Tally] = field(default_factory=dict)

    def of(self, first: str, second: str) -> dict[str, Tally]:
        """Source → tally of `first` against `second`, where they met."""
        found = {}
        for source, tallies in (("people", self.people), ("judge", self.judge)):
            tally = tallies.get((first, second))
            turned = tallies.get((second, first))
            if tally or turned:
                found[source] = tally or (turned.turned if turned else Tally())
        return found


def judged_preferences(evidence: tuple[Evidence, ...]) -> dict[Pair, Tally]:
    """The judges' pairwise verdicts between these versions; of several about a pair the newest counts."""
    ids = {one.adapter_id for one in evidence}
    dated = sorted(
        ((judged.scored_at, one.adapter_id, judged) for one in evidence for judged in one.evaluations),
        key=lambda found: found[0],
    )
    found: dict[Pair, Tally] = {}
    for _, adapter_id, judged in dated:
        preference = judged.preference
        if preference is not None and preference.compared_with in ids:
            found.pop((preference.compared_with, adapter_id), None)
            found[adapter_id, preference.compared_with] = Tally(preference.wins, preference.ties, preference.losses)
    return found
