"""Intervals of estimates on one sample. Pure and deterministic; paired.py has version against version.

Sources: Learned-Miller & Thomas 2019 (mean of a bounded variable, arXiv:1905.06208), Lugannani & Rice 1980
(saddlepoint approximation), Wilson 1927 (binomial interval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
SCALE = 100.0  # scores lie on 0–100
_NORMAL = NormalDist()
_ROUNDING = 1e-6  # score points
_HALVINGS = 27  # of the scale, to the rounding
_SADDLE_STEPS = 60


@dataclass(frozen=True)
class Interval:
    """A point estimate and its confidence interval; low <= value <= high."""

    value: float
    low: float
    high: float


def confidence_of(submission: int) -> float:
    """Level of the interval of a family's k-th submission to the same golden data set, 0 to 1.

    Training again and again until one version passes by luck looks at the same samples each time. The first
    submission has 95 %; the k-th errs in 5 % / (k (k - 1)), so that all the further ones together err as often as
    the first one. Raises ValueError below 1.
    """
    if submission < 1:
        raise ValueError(f"submission: {submission}; the first is 1")
    error = 1 - CONFIDENCE
    return 1 - (error if submission == 1 else error / (submission * (submission - 1)))


def mean_score(scores: Sequence[float], confidence: float = CONFIDENCE, missing: int = 0) -> Interval:
    """Mean of scores on 0–100, shape (n,), with its interval after Learned-Miller and Thomas.

    The interval counts on samples that were not drawn: weights of a flat Dirichlet distribution lie on the scores and
    on one more point at the end of the scale. Right and wrong alone give the exact interval of Clopper and Pearson;
    a spread of 0 still leaves a width, 7.1 points below 50 scores of 100.

    `missing` samples could not be scored: they count as 0 for the lower end and as 100 for the upper one. Raises
    ValueError for no scores, scores off the scale, or a negative number of missing ones.
    """
    if not scores:
        raise ValueError("scores: none; an estimate needs at least one sample")
    if missing < 0:
        raise ValueError(f"missing: {missing}; expected 0 or more")
    values = np.asarray(scores, dtype=np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= SCALE):
        raise ValueError("scores: expected finite numbers from 0 to 100")
    mean = float(values.mean())
    tail = (1 - confidence) / 2
    unseen = np.zeros(missing + 1)  # the missing ones and the one never drawn, at the worst end
    low = _lower_end(np.concatenate([values, unseen]), tail)
    high = SCALE - _lower_end(np.concatenate([SCALE - values, unseen]), tail)
    return Interval(mean, min(low, mean), max(high, mean))


def pass_rate(passed: int, total: int, confidence: float = CONFIDENCE, missing: int = 0) -> Interval:
    """passed / total with its Wilson score interval, 0 to 1; `missing` samples beside them may have either result.

    Raises ValueError unless 0 <= passed <= total > 0 and missing >= 0.
    """
    if not 0 <= passed <= total or total == 0:
        raise ValueError(f"passed: {passed} of {total}; expected 0 <= passed <= total and at least one sample")
    if missing < 0:
        raise ValueError(f"missing: {missing}; expected 0 or more")
    rate = passed / total
    low, _ = _wilson(passed, total + missing, confidence)
    _, high = _wilson(passed + missing, total + missing, confidence)
    return Interval(rate, min(rate, max(0.0, low)), max(rate, min(1.0, high)))


def _wilson(passed: int, total: int, confidence: float) -> tuple[float, float]:
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    rate = passed / total
    middle = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return middle - half, middle + half


def _lower_end(points: NDArray[np.float64], tail: float) -> float:
    """The `tail` quantile of the points' mean under flat Dirichlet weights, by halving the scale."""
    low, high = 0.0, float(points.mean())
    if high < _ROUNDING:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _chance_below(points, middle) > tail:
            high = middle
        else:
            low = middle
    return low


def _chance_below(points: NDArray[np.float64], bound: float) -> float:
    """Chance that the points' mean under flat Dirichlet weights is at most `bound`, below their plain mean.

    Dirichlet weights are exponential variables over their sum, so this is the chance that the sum of
    (point - bound) × exponential is at most 0, whose cumulant generating function is known: Lugannani and Rice.
    """
    gaps = points - bound
    saddle = _saddle(gaps)
    shrunk = 1 - gaps * saddle
    root = -sqrt(max(0.0, 2 * float(np.log(shrunk).sum())))
    if root > -1e-4:
        return 0.5  # at the mean, where the formula divides by 0
    scaled = saddle * sqrt(float(((gaps / shrunk) ** 2).sum()))
    return _NORMAL.cdf(root) + _NORMAL.pdf(root) * (1 / root - 1 / scaled)


def _saddle(gaps: NDArray[np.float64]) -> float:
    """Where the derivative of the cumulant generating function, which increases, is 0: Newton within a bracket."""
    low, high = 1 / float(gaps.min()), 0.0
    saddle = low / 2
    for _ in range(_SADDLE_STEPS):
        parts = gaps / (1 - gaps * saddle)
        slope = float(parts.sum())
        low, high = (low, saddle) if slope > 0 else (saddle, high)
        step = saddle - slope / float(parts @ parts)
        if not low < step < high:
            step = (low + high) / 2
        if abs(step - saddle) <= 1e-10 * abs(saddle):
            return step
        saddle = step
    return saddle
