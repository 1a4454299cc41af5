"""From which similarity on an adapter counts as a match."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.router.evidence import ENOUGH, Evidence, Kind, Vectors

WIDEST = 2.0
"""Cosine similarities are no further apart."""
STEP = 2.0**-13
"""Scatter is counted in steps as wide."""
STEPS = int(2 * WIDEST / STEP)


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
    of n + 1 values the floor((n + 1) · level)-th smallest, less than `STEP` below it. Where all together are too few
    for it, the lowest own one.

    A change costs the prompts of the adapter that changed, however many others there are.
    """

    def __init__(self, level: Level, known: Mapping[str, Evidence] | None = None) -> None:
        self._level = level
        self._kinds: dict[str, Kind] = {}
        self._nearness: dict[str, Vectors] = {}
        self._medians: dict[str, float] = {}
        self._scatter = np.zeros(STEPS, dtype=np.int64)
        self._drop: float | None = None
        self._changed = False
        for name, evidence in (known or {}).items():
            self.put(name, evidence)

    def put(self, name: str, evidence: Evidence) -> None:
        """What an adapter is recognised by now."""
        self.remove(name)
        self._kinds[name], self._nearness[name] = evidence.kind, evidence.nearness
        if len(evidence.nearness) >= ENOUGH:
            self._medians[name] = float(np.median(evidence.nearness))
            self._count(name, 1)

    def remove(self, name: str) -> None:
        """Forget an adapter; unknown ones are no error."""
        if name in self._medians:
            self._count(name, -1)
            del self._medians[name]
        self._kinds.pop(name, None)
        self._nearness.pop(name, None)

    @property
    def drop(self) -> float | None:
        """How far below its median an adapter's threshold is; None where all their prompts are too few."""
        if self._changed:
            self._drop = _conformal(self._scatter, self._level.false_rejection)
            self._changed = False
        return self._drop

    def threshold(self, name: str) -> Threshold:
        """Of an adapter that was put; raises KeyError for another."""
        uncalibrated = self._level.uncalibrated[self._kinds[name]]
        if name not in self._medians:
            return Threshold(uncalibrated, 0)
        nearness, drop = self._nearness[name], self.drop
        value = min(float(nearness.min()), uncalibrated) if drop is None else self._medians[name] + drop
        return Threshold(max(value, self._level.lowest), len(nearness))

    def share_not_nearer(self, name: str, score: float) -> float | None:
        """The fraction of an adapter's own prompts that come no nearer than this query, if known."""
        return share_not_nearer(self._nearness[name], score)

    def _count(self, name: str, times: int) -> None:
        scatter = self._nearness[name] - self._medians[name]
        steps = np.floor((scatter + WIDEST) / STEP).astype(np.int64)
        np.add.at(self._scatter, np.clip(steps, 0, STEPS - 1), times)
        self._changed = True


def share_not_nearer(nearness: Vectors, score: float) -> float | None:
    """The fraction of an adapter's own prompts that come no nearer than this query (a conformal p-value), if known."""
    if len(nearness) < ENOUGH:
        return None
    return (1 + int((nearness <= score).sum())) / (1 + len(nearness))


def _conformal(counts: NDArray[np.int64], level: float) -> float | None:
    """The lower end of the step that holds the quantile."""
    rank = int((int(counts.sum()) + 1) * level)
    return float(np.searchsorted(np.cumsum(counts), rank)) * STEP - WIDEST if rank >= 1 else None
