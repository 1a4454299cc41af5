"""Which differences between versions are significant: one test a measure and pair, Holm-corrected over all. Pure.

numpy is imported by the first comparison, not before: the registry is idle without it.
Sources: `fleet_statistics.paired` (sign-flip test), `ratings` (permutation and binomial tests), Holm 1979.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from services.registry.comparing.evidence import Evidence, Pair, Preferences, Tally
from services.registry.comparing.fairness import FairPair, fair_pair
from services.registry.policy import CRITERIA

if TYPE_CHECKING:
    from fleet_statistics.intervals import Interval

LEVEL = 0.05
"""Chance that any of a comparison's significant differences is none."""
OVERALL = "overall"
SCALES = {OVERALL: 100.0} | dict.fromkeys(CRITERIA, 10.0)
SIGN_FLIP = "paired sign-flip test, two-sided"
PERMUTATION = "permutation test of the mean rating, two-sided"
BINOMIAL = "exact binomial test of the preferences, two-sided"

Scores = Mapping[str, Mapping[str, float]]
"""Sample id → measure → value."""


@dataclass(frozen=True, slots=True)
class Tested:
    """One measure of a pair, first minus second. `chance` is the p-value, `corrected` the same over all tests (Holm).

    `samples` are pairs of answers, or ratings or preferences of both together.
    """

    measure: str
    test: str
    samples: int
    difference: float
    interval: Interval | None
    chance: float
    corrected: float = 1.0

    @property
    def significant(self) -> bool:
        return self.corrected <= LEVEL


@dataclass(frozen=True, slots=True)
class PairResult:
    """Two versions held against each other. `unfair` says why their evaluations do not compare; empty where they do."""

    first: str
    second: str
    unfair: str
    fair: FairPair | None
    tested: tuple[Tested, ...]
    preferences: Mapping[str, Tally]


def fair_pairs(evidence: Sequence[Evidence]) -> dict[Pair, FairPair | str]:
    """Each two of the versions, in the order given, with the evaluations to compare or why there are none."""
    return {(one.adapter_id, two.adapter_id): fair_pair(one, two) for one, two in combinations(evidence, 2)}


def compare_pairs(
    evidence: Sequence[Evidence],
    fair: Mapping[Pair, FairPair | str],
    scores: Mapping[str, Scores],
    preferences: Preferences,
) -> list[PairResult]:
    """Every test that the evidence permits, corrected for their number.

    scores: of every evaluation in `fair`, by its evaluation id.
    """
    by_id = {one.adapter_id: one for one in evidence}
    results = []
    for (first, second), found in fair.items():
        together = found if isinstance(found, FairPair) else None
        met = preferences.of(first, second)
        tested = [
            *(_scored(scores[together.new.evaluation_id], scores[together.old.evaluation_id]) if together else ()),
            *_rated(by_id[first], by_id[second]),
            *_preferred(met),
        ]
        unfair = found if isinstance(found, str) else ""
        results.append(PairResult(first, second, unfair, together, tuple(tested), met))
    return _corrected(results)


def _scored(new: Scores, old: Scores) -> Iterator[Tested]:
    from fleet_statistics import paired

    found = paired.differences(_by_measure(new), _by_measure(old), SCALES)
    for measure in SCALES:
        if one := found.get(measure):
            yield Tested(measure, SIGN_FLIP, one.samples, one.difference.value, one.difference, one.chance)


def _by_measure(scores: Scores) -> dict[str, dict[str, float]]:
    return {name: {key: values[name] for key, values in scores.items() if name in values} for name in SCALES}


def _rated(first: Evidence, second: Evidence) -> Iterator[Tested]:
    from fleet_statistics import ratings

    mine, theirs = first.feedback, second.feedback
    if mine.average is None or theirs.average is None:
        return
    chance = ratings.chance_of_equal_ratings(mine.ratings, theirs.ratings)
    yield Tested("rating", PERMUTATION, mine.count + theirs.count, mine.average - theirs.average, None, chance)


def _preferred(met: Mapping[str, Tally]) -> Iterator[Tested]:
    """Of people and of the judge; the difference is that of the win rate to one half."""
    from fleet_statistics import ratings
    from fleet_statistics.intervals import Interval

    for source, tally in met.items():
        rate = ratings.win_rate(tally.wins, tally.ties, tally.losses)
        if rate is None:
            continue
        away = Interval(rate.value - 0.5, rate.low - 0.5, rate.high - 0.5)
        chance = ratings.chance_of_equal_preference(tally.wins, tally.losses)
        count = tally.wins + tally.ties + tally.losses
        yield Tested(f"preference ({source})", BINOMIAL, count, away.value, away, chance)


def _corrected(results: Sequence[PairResult]) -> list[PairResult]:
    from fleet_statistics import paired

    chances = {f"{at}/{one.measure}": one.chance for at, result in enumerate(results) for one in result.tested}
    corrected = paired.holm(chances)
    return [
        replace(
            result,
            tested=tuple(replace(one, corrected=corrected[f"{at}/{one.measure}"]) for one in result.tested),
        )
        for at, result in enumerate(results)
    ]
