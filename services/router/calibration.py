"""From which similarity on an adapter counts as a match."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.router.evidence import ENOUGH, Evidence, Kind, Vectors


@dataclass(frozen=True, slots=True)
class Level:
    """What thresholds are made for.

    `false_rejection`: fraction of an adapter's own queries that may be turned away. `uncalibrated`: thresholds of
    adapters of which too few prompts are known.
    """

    false_rejection: float
    uncalibrated: Mapping[Kind, float]

    @property
    def lowest(self) -> float:
        """No adapter takes less, however scattered its prompts are."""
        return min(self.uncalibrated.values())


@dataclass(frozen=True, slots=True)
class Threshold:
    """`calibrated_on`: own prompts that it was derived from; 0 where it is the setting's."""

    value: float
    calibrated_on: int


class Calibration:
    """Thresholds at which `false_rejection` of each adapter's own queries are turned away.

    Adapters differ in how near their queries come, hardly in how those scatter: the threshold is the median of the
    adapter's own prompts, and from there down the quantile of the scatter of all adapters' prompts, of which there are
    many. On CLINC150 `val` at 3 %, the quantile of each adapter's own prompts turns away 3.9 % and routes 94.1 %
    rightly, this one 3.6 % and 94.6 %; with twenty held-out prompts an adapter (150 intents) 9.5 % and 85.5 % against
    3.9 % and 90.5 %. A new activation adds to the scatter, so that all thresholds follow from what is live.

    The quantile is that of split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005):
    of n + 1 values the floor((n + 1) · level)-th smallest. Where all together are too few for it, the lowest own one.

    A change costs one pass over the scatter of all adapters, and only when a threshold is next read.
    """

    def __init__(self, level: Level, known: Mapping[str, Evidence] | None = None) -> None:
        self._level = level
        self._known: dict[str, Evidence] = {}
        self._medians: dict[str, float] = {}
        self._scatter: dict[str, Vectors] = {}
        self._drop: float | None = None
        self._changed = False
        for name, evidence in (known or {}).items():
            self.put(name, evidence)

    def put(self, name: str, evidence: Evidence) -> None:
        """What an adapter is recognised by now."""
        self.remove(name)
        self._known[name] = evidence
        if len(evidence.nearness) >= ENOUGH:
            median = self._medians[name] = float(np.median(evidence.nearness))
            self._scatter[name] = evidence.nearness - median
            self._changed = True

    def remove(self, name: str) -> None:
        """Forget an adapter; unknown ones are no error."""
        self._known.pop(name, None)
        self._medians.pop(name, None)
        self._changed |= self._scatter.pop(name, None) is not None

    def threshold(self, name: str) -> Threshold:
        """Of an adapter that was put; raises KeyError for another."""
        evidence = self._known[name]
        uncalibrated = self._level.uncalibrated[evidence.kind]
        if name not in self._medians:
            return Threshold(uncalibrated, 0)
        if self._changed:
            self._drop = _conformal(np.concatenate([*self._scatter.values()]), self._level.false_rejection)
            self._changed = False
        value = min(float(evidence.nearness.min()), uncalibrated)
        if self._drop is not None:
            value = self._medians[name] + self._drop
        return Threshold(max(value, self._level.lowest), len(evidence.nearness))


def share_not_nearer(nearness: Vectors, score: float) -> float | None:
    """The fraction of an adapter's own prompts that come no nearer than this query (a conformal p-value), if known."""
    if len(nearness) < ENOUGH:
        return None
    return (1 + int((nearness <= score).sum())) / (1 + len(nearness))


def _conformal(values: Vectors, level: float) -> float | None:
    rank = int((len(values) + 1) * level)
    return float(np.partition(values, rank - 1)[rank - 1]) if rank >= 1 else None
