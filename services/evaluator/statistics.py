"""Estimates over the samples of an evaluation: intervals and paired comparisons. Pure; every draw is seeded.

Sources: Efron 1987 (BCa bootstrap), Wilson 1927 (binomial interval), Holm 1979 (several comparisons).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 10_000
SEED = 20_251_122
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A point estimate and its confidence interval; low <= value <= high."""

    value: float
    low: float
    high: float


def mean_score(scores: Sequence[float], confidence: float = CONFIDENCE, missing: int = 0) -> Interval:
    """Mean of scores on 0–100 with its BCa bootstrap interval, clipped to the scale.

    One sample says nothing of the spread: its interval is the whole scale. `missing` samples could not be scored: they
    count as 0 for the lower end and as 100 for the upper one. Raises ValueError for no scores.
    """
    if not scores:
        raise ValueError("scores: none; an estimate needs at least one sample")
    if len(scores) == 1:
        return Interval(float(scores[0]), 0.0, 100.0)
    found = _bca(np.asarray(scores, dtype=np.float64), confidence)
    return _widened(Interval(found.value, max(0.0, found.low), min(100.0, found.high)), len(scores), missing, 100.0)


def _widened(interval: Interval, known: int, missing: int, top: float) -> Interval:
    """The interval if each missing value may be anything from 0 to `top`."""
    share = known / (known + missing)
    return Interval(interval.value, share * interval.low, share * interval.high + (1 - share) * top)


def pass_rate(passed: int, total: int, confidence: float = CONFIDENCE, missing: int = 0) -> Interval:
    """passed / total with its Wilson score interval, 0 to 1; `missing` samples beside them may have either result.

    Raises ValueError unless 0 <= passed <= total > 0.
    """
    if not 0 <= passed <= total or total == 0:
        raise ValueError(f"passed: {passed} of {total}; expected 0 <= passed <= total and at least one sample")
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    rate = passed / total
    middle = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (rate * (1 - rate) / total + z * z / (4 * total * total)) ** 0.5
    found = Interval(rate, min(rate, max(0.0, middle - half)), max(rate, min(1.0, middle + half)))
    return _widened(found, total, missing, 1.0)


@dataclass(frozen=True)
class Comparison:
    """New minus old over the same samples: the mean difference, and the criteria that fell significantly."""

    difference: Interval
    criteria: tuple[str, ...]

    @property
    def regression(self) -> bool:
        """The whole interval lies below 0."""
        return self.difference.high < 0


def compare(
    new: Mapping[str, float],
    old: Mapping[str, float],
    criteria: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    confidence: float = CONFIDENCE,
) -> Comparison | None:
    """Paired comparison of overall scores by sample id, and of each criterion (new, old in the same order).

    None where fewer than two samples are common. Criteria are corrected after Holm at 1 - confidence.
    """
    common = sorted(new.keys() & old.keys())
    if len(common) < 2:
        return None
    difference = _bca(np.asarray([new[i] - old[i] for i in common], dtype=np.float64), confidence)
    chances = {
        name: chance_of_fall(np.asarray(mine, dtype=np.float64) - np.asarray(theirs, dtype=np.float64))
        for name, (mine, theirs) in criteria.items()
    }
    return Comparison(difference, holm(chances, 1 - confidence))


def chance_of_fall(differences: NDArray[np.float64]) -> float:
    """One-sided p-value of the paired differences' mean being below 0, by seeded sign flipping (exact null: no
    difference makes either sign as likely)."""
    if not differences.any():
        return 1.0
    signs = np.random.default_rng(SEED).choice((-1.0, 1.0), size=(DRAWS, len(differences)))
    flipped = (signs * np.abs(differences)).mean(axis=1)
    return float((1 + (flipped <= differences.mean() + 1e-12).sum()) / (DRAWS + 1))


def holm(chances: Mapping[str, float], level: float) -> tuple[str, ...]:
    """Names whose p-value is significant at the family-wise level, smallest first."""
    kept: list[str] = []
    ordered = sorted(chances.items(), key=lambda item: (item[1], item[0]))
    for place, (name, chance) in enumerate(ordered):
        if chance > level / (len(ordered) - place):
            break
        kept.append(name)
    return tuple(kept)


def _bca(values: NDArray[np.float64], confidence: float) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987)."""
    mean = float(values.mean())
    if np.ptp(values) < 1e-12:
        return Interval(mean, mean, mean)
    generator = np.random.default_rng(SEED)
    means = np.sort(values[generator.integers(0, len(values), size=(DRAWS, len(values)))].mean(axis=1))
    below = (means < mean).mean() + 0.5 * (means == mean).mean()
    bias = _NORMAL.inv_cdf(min(max(float(below), 1 / DRAWS), 1 - 1 / DRAWS))
    left_out = mean - (values.sum() - values) / (len(values) - 1)
    spread = float((left_out**2).sum())
    acceleration = float((left_out**3).sum()) / (6 * spread**1.5) if spread > 1e-24 else 0.0
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + _NORMAL.inv_cdf(tail)
        ends.append(float(np.quantile(means, _NORMAL.cdf(bias + z / (1 - acceleration * z)))))
    return Interval(mean, min(ends[0], mean), max(ends[1], mean))
