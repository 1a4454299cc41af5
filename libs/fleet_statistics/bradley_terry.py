"""Strengths of several versions from who was preferred to whom. Pure.

Source: Hunter 2004, "MM algorithms for generalized Bradley-Terry models", Annals of Statistics 32(1), 384-406.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

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
