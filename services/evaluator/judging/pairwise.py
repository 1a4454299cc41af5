"""Two answers to one question, compared by a language model in both orders. Pure.

Source: Zheng et al. 2023 (arXiv:2306.05685), position bias: an answer wins only if it is preferred in either place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fleet_statistics.intervals import SCALE, Interval, mean_score


class Preferred(StrEnum):
    """Which of the two answers a verdict prefers, by its place in the prompt."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


class Outcome(StrEnum):
    """What becomes of a pair, from the new version's side."""

    WIN = "win"
    LOSS = "loss"
    TIE = "tie"


@dataclass(frozen=True)
class PairVerdict:
    """One verdict on a pair."""

    preferred: Preferred
    reason: str


@dataclass(frozen=True)
class Pair:
    """One sample's pair: the verdict with the new answer first, and the one with it second."""

    new_first: PairVerdict
    new_second: PairVerdict

    @property
    def outcome(self) -> Outcome:
        """A win or a loss only where both orders agree on it, else a tie."""
        first, second = self._seen
        return first if first is second else Outcome.TIE

    @property
    def consistent(self) -> bool:
        """Whether both orders had the same outcome."""
        first, second = self._seen
        return first is second

    @property
    def position_bias(self) -> float:
        """Verdicts for the first place minus those for the second, over both: -1 to 1."""
        places = [verdict.preferred for verdict in (self.new_first, self.new_second)]
        return (places.count(Preferred.FIRST) - places.count(Preferred.SECOND)) / 2

    @property
    def _seen(self) -> tuple[Outcome, Outcome]:
        in_first = {Preferred.FIRST: Outcome.WIN, Preferred.SECOND: Outcome.LOSS, Preferred.TIE: Outcome.TIE}
        in_second = {Preferred.FIRST: Outcome.LOSS, Preferred.SECOND: Outcome.WIN, Preferred.TIE: Outcome.TIE}
        return in_first[self.new_first.preferred], in_second[self.new_second.preferred]


def majority(votes: Sequence[tuple[float, PairVerdict]]) -> PairVerdict:
    """What more than half of one order's votes prefer, each with its weight; with the reason of the heaviest of them.
    Else a tie."""
    votes = sorted(votes, key=lambda vote: -vote[0])
    half = sum(weight for weight, _ in votes) / 2
    for preferred in (Preferred.FIRST, Preferred.SECOND):
        of_it = [(weight, verdict) for weight, verdict in votes if verdict.preferred is preferred]
        if sum(weight for weight, _ in of_it) > half + 1e-9:
            return of_it[0][1]
    ties = [verdict for _, verdict in votes if verdict.preferred is Preferred.TIE]
    return ties[0] if ties else PairVerdict(Preferred.TIE, "the verdicts are divided")


@dataclass(frozen=True)
class Preference:
    """A version beside another, over the `samples` whose pair got its verdicts.

    win_rate is 0 to 1 with ties as half; its interval counts pairs without a verdict as missing evidence. consistency
    is the fraction of pairs with the same outcome in both orders; position_bias is -1 (always the second place) to 1.
    """

    samples: int
    wins: int
    losses: int
    ties: int
    win_rate: Interval
    consistency: float
    position_bias: float


def preference(pairs: Sequence[Pair], missing: int, confidence: float) -> Preference | None:
    """Over the judged pairs; `missing` more have no verdict. None without a judged pair."""
    if not pairs:
        return None
    outcomes = [pair.outcome for pair in pairs]
    points = {Outcome.WIN: SCALE, Outcome.LOSS: 0.0, Outcome.TIE: SCALE / 2}
    rate = mean_score([points[outcome] for outcome in outcomes], confidence, missing)
    return Preference(
        samples=len(pairs),
        wins=outcomes.count(Outcome.WIN),
        losses=outcomes.count(Outcome.LOSS),
        ties=outcomes.count(Outcome.TIE),
        win_rate=Interval(rate.value / SCALE, rate.low / SCALE, rate.high / SCALE),
        consistency=sum(pair.consistent for pair in pairs) / len(pairs),
        position_bias=sum(pair.position_bias for pair in pairs) / len(pairs),
    )
