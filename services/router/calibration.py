"""From which similarity on an adapter counts as a match."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.router.evidence import ENOUGH, Evidence, Kind, Vectors


@dataclass(frozen=True, slots=True)
class Level:
    """What thresholds are made for.

    `false_rejection`: part of an adapter's own queries that may be turned away. `uncalibrated`: thresholds of adapters
    of which too few prompts are known.
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


def calibrate(known: Mapping[str, Evidence], level: Level) -> dict[str, Threshold]:
    """Thresholds at which `false_rejection` of each adapter's own queries are turned away.

    Adapters differ in how near their queries come, hardly in how those scatter: the threshold is the median of the
    adapter's own prompts, and from there down the quantile of the scatter of all adapters' prompts, of which there are
    many. On CLINC150 `val` at 3 %, the quantile of each adapter's own prompts turns away 3.9 % and routes 94.1 %
    rightly, this one 3.6 % and 94.6 %; with twenty held-out prompts an adapter (150 intents) 9.5 % and 85.5 % against
    3.9 % and 90.5 %. A new activation adds to the scatter, so that all thresholds follow from what is live.

    The quantile is that of split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005):
    of n + 1 values the floor((n + 1) · level)-th smallest. Where all together are too few for it, the lowest own one.
    """
    enough = {name: one.nearness for name, one in known.items() if len(one.nearness) >= ENOUGH}
    medians = {name: float(np.median(values)) for name, values in enough.items()}
    scatter = np.concatenate([values - medians[name] for name, values in enough.items()] or [np.zeros(0, np.float32)])
    drop = _conformal(scatter, level.false_rejection)
    thresholds = {}
    for name, one in known.items():
        if name not in enough:
            thresholds[name] = Threshold(level.uncalibrated[one.kind], 0)
            continue
        fallback = min(float(enough[name].min()), level.uncalibrated[one.kind])
        value = fallback if drop is None else medians[name] + drop
        thresholds[name] = Threshold(max(value, level.lowest), len(enough[name]))
    return thresholds


def share_not_nearer(nearness: Vectors, score: float) -> float | None:
    """Which part of an adapter's own prompts comes no nearer than this query (a conformal p-value); None if unknown."""
    if len(nearness) < ENOUGH:
        return None
    return (1 + int((nearness <= score).sum())) / (1 + len(nearness))


def _conformal(values: Vectors, level: float) -> float | None:
    rank = int((len(values) + 1) * level)
    return float(np.partition(values, rank - 1)[rank - 1]) if rank >= 1 else None
