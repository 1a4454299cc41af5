"""How far a judge agrees with people, over answers that both have scored. Pure; every draw is seeded.

Sources: Krippendorff 2011 (alpha with the interval metric), Efron 1979 (percentile bootstrap over the answers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_statistics.intervals import CONFIDENCE, Interval

DRAWS = 500
SEED = 20_261_201
APART = 10.0
"""Points from which people's scores count as an order that the judge should have too."""
LEAST = 5
"""Answers below which no agreement is given."""
MOST = 200
"""Answers that are looked at, the last ones: pairs are their square."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """One answer, scored by the judge and by people (their mean), 0–100; length in words."""

    judge: float
    human: float
    length: int


@dataclass(frozen=True)
class Agreement:
    """alpha: 1 is the same scores, 0 what chance gives. pairwise: share of the pairs that people order (at least 10
    points apart) in the same order, ties half; None without such a pair. bias: mean of judge minus people, in points.
    length_bias: correlation of that with the answer's length, -1 to 1; None where either does not vary."""

    answers: int
    alpha: Interval
    pairwise: Interval | None
    bias: float
    length_bias: float | None


def agreement(labelled: Sequence[Labelled]) -> Agreement | None:
    """Over the last `MOST` of them. None below `LEAST`, and where all scores are the same: chance agrees as well."""
    labelled = labelled[-MOST:]
    judge = np.array([one.judge for one in labelled], dtype=np.float64)
    human = np.array([one.human for one in labelled], dtype=np.float64)
    if len(labelled) < LEAST or np.ptp(np.concatenate([judge, human])) < 1e-9:
        return None
    length = np.array([one.length for one in labelled], dtype=np.float64)
    alpha = _interval(krippendorff, judge, human)
    if alpha is None:
        return None
    return Agreement(
        answers=len(labelled),
        alpha=alpha,
        pairwise=_interval(pairwise_accuracy, judge, human),
        bias=float((judge - human).mean()),
        length_bias=_correlation(judge - human, length),
    )


def krippendorff(judge: Numbers, human: Numbers) -> float | None:
    """Krippendorff's alpha of two raters, interval metric; None where no score varies.

    One less the ratio of the mean squared difference within the answers to that between all scores.
    """
    pooled = np.concatenate([judge, human])
    among = pooled.var() * 2 * len(pooled) / (len(pooled) - 1)
    return None if among < 1e-12 else float(1 - ((judge - human) ** 2).mean() / among)


def pairwise_accuracy(judge: Numbers, human: Numbers) -> float | None:
    """Share of the pairs ordered by people in the judge's order; None without one."""
    human_gaps, judge_gaps = human[:, None] - human[None, :], judge[:, None] - judge[None, :]
    ordered = human_gaps >= APART
    if not ordered.any():
        return None
    return float(((judge_gaps > 0) + 0.5 * (judge_gaps == 0))[ordered].mean())


def _correlation(one: Numbers, other: Numbers) -> float | None:
    if np.ptp(one) < 1e-9 or np.ptp(other) < 1e-9:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _interval(measure: Callable[[Numbers, Numbers], float | None], judge: Numbers, human: Numbers) -> Interval | None:
    value = measure(judge, human)
    if value is None:
        return None
    rows = np.random.default_rng(SEED).integers(0, len(judge), size=(DRAWS, len(judge)))
    drawn = [found for row in rows if (found := measure(judge[row], human[row])) is not None]
    low, high = np.quantile(drawn or [value], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, min(value, float(low)), max(value, float(high)))
