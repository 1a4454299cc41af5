"""Version against version, paired on the same samples. Pure; every draw is seeded.

Sources: Hartigan 1969 (typical values: the interval is inverted from the sign-flip test), Holm 1979 and Bretz et al.
2009 (several comparisons, and the error that a rejected one passes on).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_statistics.intervals import SCALE, Interval

DRAWS = 10_000
PART = 1_000  # draws at once
SEED = 20_251_122
ERROR = 0.03  # chance of a false alarm from the overall score
CRITERIA_ERROR = 0.01  # ... and from all criteria together
ROUNDING = 1e-9
TWO_SIDED = 0.05  # error of `differences`, both sides together


@dataclass(frozen=True)
class CriterionChange:
    """How one criterion moved. `chance` is the one-sided p-value of no fall, corrected over all criteria (Holm)."""

    difference: float
    chance: float
    fell: bool


@dataclass(frozen=True)
class Comparison:
    """New minus old over the samples that both have: overall in score points, criteria on their scale of 0–10.

    The interval has 94 %: it lies below 0 exactly where the one-sided sign-flip test rejects at 3 %.
    """

    samples: int
    difference: Interval
    criteria: Mapping[str, CriterionChange]

    @property
    def fallen(self) -> tuple[str, ...]:
        """Criteria that fell significantly, the surest first."""
        fell = [(change.chance, name) for name, change in self.criteria.items() if change.fell]
        return tuple(name for _, name in sorted(fell))

    @property
    def regression(self) -> bool:
        """The overall score or a criterion fell significantly. Two equal versions come to it in at most 4 %."""
        return self.difference.high < 0 or bool(self.fallen)


@dataclass(frozen=True)
class Difference:
    """One measure, new minus old, over the samples that both have.

    The interval has 95 % and lies on one side of 0 exactly where the two-sided test rejects at 5 %. `chance` is the
    p-value of that test, not yet corrected for the number of tests.
    """

    samples: int
    difference: Interval
    chance: float


def differences(
    new: Mapping[str, Mapping[str, float]], old: Mapping[str, Mapping[str, float]], scales: Mapping[str, float]
) -> dict[str, Difference]:
    """Two-sided paired sign-flip test of each measure: (name → sample id → value) of both versions.

    scales: largest value of each measure, which bounds its interval. A measure with fewer than two common samples is
    left out. The test is that of `compare`, on both sides.
    """
    together: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(new.keys() & old.keys()):
        common = tuple(sorted(new[name].keys() & old[name].keys()))
        if len(common) >= 2:
            together.setdefault(common, []).append(name)
    found = {}
    for common, names in together.items():
        moved = np.asarray([[new[name][i] - old[name][i] for name in names] for i in common], dtype=np.float64)
        sums, sizes = _subset_sums(moved)
        for place, (name, mean) in enumerate(zip(names, moved.mean(axis=0), strict=True)):
            column = sums[:, place]
            chance = min(1.0, 2 * min(_chance_of_no_fall(column), _chance_of_no_fall(-column)))
            interval = _interval(float(mean), column, sizes, error=TWO_SIDED / 2, scale=scales[name])
            found[name] = Difference(len(common), interval, chance)
    return found


def compare(
    new: Mapping[str, float],
    old: Mapping[str, float],
    criteria: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]],
) -> Comparison | None:
    """Paired comparison of overall scores by sample id, and of each criterion's (new, old) scores by sample id.

    The test flips which version gave which result, sample by sample: where neither version is better the two results
    of a sample may as well be exchanged, and the test is exact for every distribution of the scores. None where fewer
    than two samples are common.
    """
    common = sorted(new.keys() & old.keys())
    if len(common) < 2:
        return None
    pairs = [(new, old), *criteria.values()]
    moved = np.asarray([[mine[i] - theirs[i] for mine, theirs in pairs] for i in common], dtype=np.float64)
    sums, sizes = _subset_sums(moved)
    means = moved.mean(axis=0)
    chances = {name: _chance_of_no_fall(sums[:, place]) for place, name in enumerate(criteria, start=1)}
    corrected = holm(chances)
    difference = _interval(float(means[0]), sums[:, 0], sizes, error=ERROR, scale=SCALE)
    # What the overall score has won is no longer at stake: the criteria take over its share (Bretz et al.).
    error = CRITERIA_ERROR + (ERROR if difference.high < 0 else 0)
    return Comparison(
        samples=len(common),
        difference=difference,
        criteria={
            name: CriterionChange(float(means[place]), corrected[name], fell=corrected[name] <= error)
            for place, name in enumerate(criteria, start=1)
        },
    )


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """The p-values corrected for their number: below a level, all together err at that level."""
    corrected: dict[str, float] = {}
    floor = 0.0
    ordered = sorted(chances.items(), key=lambda item: (item[1], item[0]))
    for place, (name, chance) in enumerate(ordered):
        floor = max(floor, min(1.0, chance * (len(ordered) - place)))
        corrected[name] = floor
    return corrected


def _subset_sums(differences: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seeded random subsets of the samples, those whose results are exchanged: each one's sums and its size.

    differences: (samples, columns). Returns (DRAWS, columns) and (DRAWS,); a part at a time, to bound the memory.
    """
    generator = np.random.default_rng(SEED)
    columns = np.column_stack([differences, np.ones(len(differences))])
    parts = [
        generator.integers(0, 2, size=(PART, len(differences)), dtype=np.int8).astype(np.float64) @ columns
        for _ in range(DRAWS // PART)
    ]
    found = np.concatenate(parts)
    return found[:, :-1], found[:, -1]


def _chance_of_no_fall(sums: NDArray[np.float64]) -> float:
    """One-sided p-value: how often the mean is as low with random signs. Flipping a subset lowers the mean, or
    leaves it, exactly if the subset's sum is not negative."""
    return float((1 + (sums >= -ROUNDING).sum()) / (DRAWS + 1))


def _interval(
    mean: float, sums: NDArray[np.float64], sizes: NDArray[np.float64], *, error: float, scale: float
) -> Interval:
    """Every shift that the test does not reject at `error` on either side: quantiles of the subsets' means.

    A shift is rejected if too few subsets have a mean beyond it; the empty subset counts as beyond any. So two
    samples, of which one subset in four is empty, give the whole scale.
    """
    filled = sizes > 0
    means = np.sort(sums[filled] / sizes[filled])
    allowed = int(error * (DRAWS + 1)) - 1 - int((~filled).sum())  # subsets beyond a shift that is rejected
    if allowed < 0:
        return Interval(mean, -scale, scale)
    return Interval(mean, min(mean, float(means[allowed])), max(mean, float(means[-1 - allowed])))
