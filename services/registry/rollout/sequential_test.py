"""An anytime-valid test of a candidate against the active version: look after every answer, as often as you like.

For outcomes x in [0, 1] and a number m, the wealth of someone who bets that their mean is above m,

    W(m) = average over the bets b of  Π (1 + b/m · (x - m)),   0 < b < 1,

starts at 1 and is not expected to grow while the mean is at most m (Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 86, 2024). If the candidate's mean is at most the active version's plus a
tolerance d, some m separates them: candidate ≤ m + d and active ≥ m. For that m the product of the wealth of betting
against the one and that of betting against the other is not expected to grow either, in any order of answers
and whichever part of them each version gives. So the least product over all m reaches 1/α in at most a part α of all
runs, however often it is looked at (Ville's inequality; Howard et al., "Time-uniform, nonparametric, nonasymptotic
confidence sequences", Annals of Statistics 49, 2021).

Between two neighbouring numbers m the product is bounded from below by the parts at the two ends. Everything is a
function of how often each outcome occurred: the order of arrival changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import log

import numpy as np
import numpy.typing as npt

Outcomes = Mapping[float, int]
"""Outcome in [0, 1], 1 the worst → how often it occurred."""
Numbers = npt.NDArray[np.float64]

NAME = "betting e-process, product over a separating mean"
"""As events and the API name this test."""
CELLS = 160
BETS: Numbers = np.geomspace(0.006, 0.85, 8)
EDGES: Numbers = np.sin(np.linspace(0, np.pi / 2, CELLS + 1)) ** 2
"""Numbers m at the ends of the cells, closer together where a rate varies less (arcsine transformation)."""
_LEAST = 1e-9
_STEPS = 24


def log_evidence_worse(candidate: Outcomes, active: Outcomes, tolerance: float = 0.0) -> float:
    """Logarithm of the evidence that the candidate's mean outcome is above the active version's by over `tolerance`.

    "Not worse" is refuted at level α where this reaches log(1/α). Swap the two for the evidence that it is better.
    """
    above = _wealth(candidate, EDGES + tolerance)
    below = _wealth(_mirrored(active), 1 - EDGES)
    return float(separated(above, below))


def log_evidence_above(outcomes: Outcomes, mean: float) -> float:
    """Logarithm of the evidence that the mean outcome of one sample is above `mean`."""
    return float(_wealth(outcomes, np.array([mean]))[0])


def interval(candidate: Outcomes, active: Outcomes, level: float) -> tuple[float, float]:
    """Both ends of what the difference of the means may be, candidate minus active, at every look at once.

    Covers the true difference throughout the run with probability 1 - `level`.
    """
    line = log(2 / level)
    low = _crossing(lambda difference: log_evidence_worse(candidate, active, difference) >= line)
    high = -_crossing(lambda difference: log_evidence_worse(active, candidate, difference) >= line)
    return low, high


def interval_of_mean(outcomes: Outcomes, level: float) -> tuple[float, float]:
    """The same for the mean of one sample."""
    line, mirrored = log(2 / level), _mirrored(outcomes)
    low = _crossing(lambda mean: log_evidence_above(outcomes, mean) >= line)
    high = 1 - _crossing(lambda mean: log_evidence_above(mirrored, mean) >= line)
    return max(low, 0.0), min(high, 1.0)


def mean(outcomes: Outcomes) -> float:
    """Mean outcome; NaN of none."""
    number = sum(outcomes.values())
    return sum(outcome * times for outcome, times in outcomes.items()) / number if number else float("nan")


def growth(values: Numbers, means: Numbers) -> Numbers:
    """Logarithm of what one outcome multiplies the wealth by, [bets, means, values]; 0 where the mean is 1 or more."""
    least = np.clip(means, _LEAST, 1.0)
    bets = np.where(means < 1, BETS[:, None] / least, 0.0)
    return np.asarray(np.log1p(bets[:, :, None] * (values - least[:, None])))


def log_wealth(grown: Numbers, times: Numbers) -> Numbers:
    """Logarithm of the wealth after each outcome occurred so many times, [..., values] → [..., means]."""
    found = np.tensordot(times, grown, axes=([-1], [-1]))
    highest = found.max(axis=-2, keepdims=True)
    return np.asarray(highest[..., 0, :] + np.log(np.exp(found - highest).mean(axis=-2)))


def separated(above: Numbers, below: Numbers) -> Numbers:
    """Least logarithm of the product over the cells of m, [..., edges] → [...]."""
    return np.asarray((above[..., 1:] + below[..., :-1]).min(axis=-1))


def _wealth(outcomes: Outcomes, means: Numbers) -> Numbers:
    values = tuple(sorted(outcomes))
    times = np.array([outcomes[value] for value in values], dtype=np.float64)
    return log_wealth(_growth(values, means.tobytes()), times)


@lru_cache(maxsize=128)
def _growth(values: tuple[float, ...], means: bytes) -> Numbers:
    return growth(np.array(values), np.frombuffer(means))


def _mirrored(outcomes: Outcomes) -> dict[float, int]:
    return {1 - outcome: times for outcome, times in outcomes.items()}


def _crossing(refuted: Callable[[float], bool]) -> float:
    """The largest number from -1 to 1 up to which all are refuted."""
    low, high = -1.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
