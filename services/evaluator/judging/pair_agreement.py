"""How often a judge prefers what people prefer, and what its vote in a panel weighs by that. Pure.

Source: Nitzan and Paroush 1982, Int. Econ. Rev. 23(2): of independent voters, a majority weighted with the log odds of
each one's accuracy is right most often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fleet_statistics.intervals import SCALE, Interval, mean_score
from services.evaluator.judging.agreement import APART, LEAST
from services.evaluator.judging.pairwise import Outcome, Pair

PRIOR_AGREED, PRIOR_PAIRS = 3.0, 4.0
"""Pairs that every judge begins with: before any measurement it is taken to be right three times in four."""


@dataclass(frozen=True)
class LabelledPair:
    """A compared pair, and people's mean scores of its two answers, 0–100."""

    pair: Pair
    human_new: float
    human_old: float

    @property
    def ordered(self) -> bool:
        """Whether people's scores are far enough apart to say which answer is better."""
        return abs(self.human_new - self.human_old) >= APART

    @property
    def agreed(self) -> float:
        """1 where the judge prefers people's answer, 0 where the other; a half for a tie or orders that differ."""
        better = Outcome.WIN if self.human_new > self.human_old else Outcome.LOSS
        return 0.5 if self.pair.outcome is Outcome.TIE else float(self.pair.outcome is better)


@dataclass(frozen=True)
class PairAccuracy:
    """Over the `pairs` that people order: how many the judge has in the same order, ties half."""

    pairs: int
    agreed: float

    @property
    def weight(self) -> float:
        """Log odds of its accuracy; 0 where that is no better than chance, and its vote counts for nothing."""
        right = self.agreed + PRIOR_AGREED
        wrong = self.pairs - self.agreed + PRIOR_PAIRS - PRIOR_AGREED
        return max(0.0, math.log(right / wrong))


UNMEASURED = PairAccuracy(0, 0.0)


@dataclass(frozen=True)
class PairAgreement:
    """rate: fraction of the pairs that people order in the same order, ties half. consistency: of all its labelled
    pairs, the fraction with the same outcome in both orders."""

    pairs: int
    rate: Interval
    consistency: float


def accuracy(labelled: Sequence[LabelledPair]) -> PairAccuracy:
    """Over the pairs that people order."""
    ordered = [one.agreed for one in labelled if one.ordered]
    return PairAccuracy(len(ordered), sum(ordered))


def pair_agreement(labelled: Sequence[LabelledPair]) -> PairAgreement | None:
    """None below `LEAST` pairs that people order."""
    ordered = [one.agreed for one in labelled if one.ordered]
    if len(ordered) < LEAST:
        return None
    rate = mean_score([SCALE * agreed for agreed in ordered])
    return PairAgreement(
        pairs=len(ordered),
        rate=Interval(rate.value / SCALE, rate.low / SCALE, rate.high / SCALE),
        consistency=sum(one.pair.consistent for one in labelled) / len(labelled),
    )
