"""Ratings and preferences by people: estimates and tests without an assumption about their distribution. Pure.

Sources: Fisher 1935 (permutation test), Clopper and Pearson 1934 (binomial test); intervals are `mean_score`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import comb, sqrt
from statistics import NormalDist

import numpy as np

from fleet_statistics.intervals import CONFIDENCE, SCALE, Interval, mean_score

LOWEST, HIGHEST = 1, 5
DRAWS = 10_000
SEED = 20_261_201
ROUNDING = 1e-9
MANY = 5_000
"""Observations from which the normal approximation is taken: exact work grows with them, its gain does not."""


def mean_rating(counts: Mapping[int, int]) -> Interval | None:
    """Mean of ratings from 1 to 5, (rating → how often), with its 95 % interval; None for no ratings."""
    width = HIGHEST - LOWEST
    mean = _mean({(rating - LOWEST) / width * SCALE: times for rating, times in counts.items()})
    if mean is None:
        return None
    return Interval(*(LOWEST + end / SCALE * width for end in (mean.value, mean.low, mean.high)))


def chance_of_equal_ratings(new: Mapping[int, int], old: Mapping[int, int]) -> float:
    """Two-sided p-value: how often the means differ as much where the ratings are dealt out at random.

    1 where either side has none. Every rating counts as independent of the others.
    """
    levels = np.arange(LOWEST, HIGHEST + 1)
    mine, theirs = (np.asarray([side.get(int(level), 0) for level in levels]) for side in (new, old))
    here, there = int(mine.sum()), int(theirs.sum())
    if not here or not there:
        return 1.0
    both = mine + theirs
    dealt = np.random.default_rng(SEED).multivariate_hypergeometric(both, here, size=DRAWS)
    found = dealt @ levels / here - (both - dealt) @ levels / there
    seen = mine @ levels / here - theirs @ levels / there
    return float((1 + (np.abs(found) >= abs(seen) - ROUNDING).sum()) / (DRAWS + 1))


def win_rate(wins: int, ties: int, losses: int) -> Interval | None:
    """Fraction of comparisons won, ties half, 0 to 1, with its 95 % interval; None for no comparisons."""
    mean = _mean({SCALE: wins, SCALE / 2: ties, 0.0: losses})
    return Interval(mean.value / SCALE, mean.low / SCALE, mean.high / SCALE) if mean else None


def chance_of_equal_preference(wins: int, losses: int) -> float:
    """Two-sided p-value of the exact binomial test that either version is preferred as often; ties are left out."""
    decided, fewer = wins + losses, min(wins, losses)
    if decided > MANY:  # the exact sum would take integers of thousands of digits
        return min(1.0, 2 * NormalDist(decided / 2, decided**0.5 / 2).cdf(fewer + 0.5))
    tail = sum(comb(decided, times) for times in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**decided))


def _mean(scores: Mapping[float, int]) -> Interval | None:
    """Mean of (score on 0 to 100 → how often) with its 95 % interval; None for no scores."""
    total = sum(scores.values())
    if not total:
        return None
    if total <= MANY:
        return mean_score([score for score, times in scores.items() for _ in range(times)])
    mean = sum(score * times for score, times in scores.items()) / total
    spread = sum((score - mean) ** 2 * times for score, times in scores.items()) / total
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * sqrt(spread / total)
    return Interval(mean, max(0.0, mean - half), min(SCALE, mean + half))
