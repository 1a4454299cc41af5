"""Strengths of several versions from who was preferred to whom. Pure.

Source: Hunter 2004, "MM algorithms for generalized Bradley-Terry models", Annals of Statistics 32(1), 384-406.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fleet_statistics.intervals import CONFIDENCE, Interval

TOLERANCE = 1e-12  # largest change of a strength in the last step, as a fraction of it
STEPS = 100_000


class NotConnected(ValueError):
    """Some versions never lost to the others, or never met them: no finite strengths explain the preferences."""


def strengths(wins: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Maximum-likelihood strengths, which add up to 1: i is preferred to j with chance s_i / (s_i + s_j).

    Args:
        wins: (preferred, other) → how often; a tie counts half for each. At least two names.

    Raises NotConnected unless every version can be reached from every other along wins (Hunter's assumption 1), under
    which alone the likelihood has a maximum; it is then the only one, and every step of the algorithm comes nearer.
    """
    names = sorted({name for pair in wins for name in pair})
    place = {name: index for index, name in enumerate(names)}
    won = np.zeros((len(names), len(names)))
    for (winner, loser), times in wins.items():
        if times < 0 or winner == loser:
            raise ValueError(f"wins of {winner} over {loser}: {times}; expected 0 or more, over another version")
        won[place[winner], place[loser]] += times
    if len(names) < 2 or not _connected(won > 0):
        raise NotConnected(f"{', '.join(names) or 'no version'}: not every version was both preferred and passed over")
    return dict(zip(names, (float(one) for one in _climb(won)), strict=True))


def win_rates(wins: Mapping[tuple[str, str], float], confidence: float = CONFIDENCE) -> dict[str, Interval]:
    """Each version's chance to be preferred to an average other one, with its interval.

    The interval is Wald's on the log-odds of that chance (delta method): the logarithms of the strengths have the
    inverse Fisher information as their covariance (Agresti 2013, Categorical Data Analysis, 11.6). It counts on
    preferences that were drawn independently, and is for large numbers of them. A tie counts as half a win, which
    varies less than a win or a loss, so that ties make it wider than need be.

    Args:
        wins: as of `strengths`, which raises the same.
        confidence: level of each interval alone.
    """
    found = strengths(wins)
    names, values = list(found), np.array(list(found.values()))
    chance = values[:, None] / (values[:, None] + values[None, :])
    varies = chance * (1 - chance)
    np.fill_diagonal(varies, 0.0)
    met = np.array([[wins.get((i, j), 0) + wins.get((j, i), 0) for j in names] for i in names], dtype=np.float64)
    information = np.diag((met * varies).sum(axis=1)) - met * varies
    # Strengths are known up to a common factor: the information is singular along it, and no chance depends on it.
    covariance = np.linalg.pinv(information)
    slopes = (np.diag(varies.sum(axis=1)) - varies) / (len(names) - 1)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rates: dict[str, Interval] = {}
    for at, name in enumerate(names):
        rate = float((chance[at].sum() - chance[at, at]) / (len(names) - 1))
        width = z * sqrt(float(slopes[at] @ covariance @ slopes[at])) / (rate * (1 - rate))
        odds = log(rate / (1 - rate))
        rates[name] = Interval(rate, 1 / (1 + exp(width - odds)), 1 / (1 + exp(-width - odds)))
    return rates


def _climb(won: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hunter's update (his equation 3): each strength becomes its wins over the sum of meetings / (s_i + s_j)."""
    met, total = won + won.T, won.sum(axis=1)
    found = np.full(len(won), 1 / len(won))
    for _ in range(STEPS):
        updated = total / (met / (found[:, None] + found[None, :])).sum(axis=1)
        updated /= updated.sum()
        if np.max(np.abs(updated - found) / found) < TOLERANCE:
            return np.asarray(updated)
        found = updated
    return found


def _connected(beat: NDArray[np.bool_]) -> bool:
    """Whether everybody is reached from everybody along the wins."""
    return all(_reached(graph).all() for graph in (beat, beat.T))


def _reached(graph: NDArray[np.bool_]) -> NDArray[np.bool_]:
    seen = np.zeros(len(graph), dtype=np.bool_)
    seen[0] = True
    for _ in graph:
        seen |= graph[seen].any(axis=0)
    return seen
