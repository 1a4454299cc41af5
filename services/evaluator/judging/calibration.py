"""A judge's scores brought to the scale of people's: a straight line, fitted on answers that both scored. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet_statistics.intervals import SCALE
from services.evaluator.judging.agreement import Labelled

LEAST = 20
"""Labelled answers that a calibration takes."""


@dataclass(frozen=True)
class Calibration:
    """The score that people give on average where the judge gives `score`: intercept + slope × score, 0–100.

    `answers` is how many it was fitted on; 0 leaves scores as they are.
    """

    intercept: float
    slope: float
    answers: int

    def of_points(self, score: float) -> float:
        """A score on 0–100."""
        return min(SCALE, max(0.0, self.intercept + self.slope * score))

    def of_criterion(self, score: float) -> float:
        """A score on 0–10."""
        return self.of_points(10 * score) / 10


UNCALIBRATED = Calibration(0.0, 1.0, 0)


def fit(labelled: Sequence[Labelled]) -> Calibration | None:
    """The line of least squares from the judge's scores to people's; None for fewer than `LEAST` answers.

    A judge whose scores do not rise with people's gets a slope of 0: it knows nothing of an answer but the average.
    """
    if len(labelled) < LEAST:
        return None
    judge = np.array([one.judge for one in labelled], dtype=np.float64)
    human = np.array([one.human for one in labelled], dtype=np.float64)
    spread = judge - judge.mean()
    slope = max(0.0, float(spread @ human) / float(spread @ spread)) if np.ptp(judge) > 1e-9 else 0.0
    return Calibration(float(human.mean() - slope * judge.mean()), slope, len(labelled))
