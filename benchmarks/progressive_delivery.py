"""How often rollouts of simulated candidates end wrongly, and after how many requests bad ones are rolled back.

The registry's own test and rules decide. With a fixed split they look after every single request, in a canary after
every answer of the candidate. Outcomes are failures (a request fails or not) and scores of 0 to 100 in steps of five,
normal around a mean with a standard deviation, cut at the ends. `looked`: the same looks with a two-sided z test at
5 %, as a dashboard is read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import erf, log, sqrt

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Row, emit, options
from services.registry.rollout.rules import Delivery
from services.registry.rollout.sequential_test import EDGES, growth, log_wealth, separated

SEED = 17
STEP = 5
Numbers = NDArray[np.float64]
Runs = NDArray[np.intp]


@dataclass(frozen=True)
class Version:
    """A simulated version: the chance of each outcome, 0 the best and 1 the worst."""

    outcomes: Numbers
    chances: Numbers

    def drawn(self, draw: np.random.Generator, runs: int) -> Numbers:
        """One outcome in each run, [runs, outcomes] of 0 and 1."""
        found = np.zeros((runs, len(self.outcomes)))
        found[np.arange(runs), draw.choice(len(self.outcomes), runs, p=self.chances)] = 1
        return found

    def several(self, draw: np.random.Generator, number: NDArray[np.int64]) -> Numbers:
        """So many outcomes in each run, [runs, outcomes]."""
        return np.asarray(draw.multinomial(number, self.chances), dtype=np.float64)


def failing(rate: float) -> Version:
    """A part of the requests gets no answer."""
    return Version(np.array([0.0, 1.0]), np.array([1 - rate, rate]))


def scored(mean: float, spread: float) -> Version:
    """Scores in steps of five points; what lies beyond an end is at it."""
    ends = [(point + STEP / 2 - mean) / spread for point in range(0, 100, STEP)]
    below = np.array([0.0, *(0.5 + erf(end / sqrt(2)) / 2 for end in ends), 1.0])
    return Version(1 - np.arange(0, 101, STEP) / 100, np.diff(below))


class Evidence:
    """How often each outcome occurred in each of many runs, and what follows from it."""

    def __init__(self, runs: int, outcomes: Numbers) -> None:
        self._outcomes = outcomes
        self._above = growth(outcomes, EDGES)
        self._below = growth(1 - outcomes, 1 - EDGES)
        self._candidate = np.zeros((runs, len(outcomes)))
        self._incumbent = np.zeros((runs, len(outcomes)))

    def add(self, runs: Runs, candidate: Numbers, incumbent: Numbers) -> None:
        self._candidate[runs] += candidate
        self._incumbent[runs] += incumbent

    def clear(self, runs: Runs) -> None:
        self._candidate[runs] = self._incumbent[runs] = 0

    def least(self, runs: Runs) -> Numbers:
        """Outcomes of the version that has fewer."""
        return np.asarray(np.minimum(self._candidate[runs].sum(axis=-1), self._incumbent[runs].sum(axis=-1)))

    def worse(self, runs: Runs) -> Numbers:
        """Logarithm of the evidence that the candidate is worse."""
        above = log_wealth(self._above, self._candidate[runs])
        return separated(above, log_wealth(self._below, self._incumbent[runs]))

    def looked(self, runs: Runs) -> NDArray[np.bool_]:
        """Whether a z test at 5 % finds the candidate worse now, on ten outcomes of each at least."""
        times = np.stack([self._candidate[runs], self._incumbent[runs]])
        number = np.maximum(times.sum(axis=-1), 1)
        mean = times @ self._outcomes / number
        variance = times @ self._outcomes**2 / number - mean**2
        error = np.sqrt(np.maximum((variance / number).sum(axis=0), 1e-18))
        return np.asarray((number.min(axis=0) >= 10) & (mean[0] - mean[1] > 1.96 * error))


@dataclass(frozen=True)
class Ends:
    """How simulated rollouts ended: rolled back or not, after how many requests, of which the candidate answered some.

    `looked`: whether a z test would have found the candidate worse at one of the looks.
    """

    rolled_back: NDArray[np.bool_]
    requests: NDArray[np.int64]
    answered: NDArray[np.int64]
    looked: NDArray[np.bool_]

    @property
    def part(self) -> float:
        """Of the runs, rolled back."""
        return float(self.rolled_back.mean())

    def within(self, part: float, *, answered: bool = False) -> float:
        """Requests within which this part of all runs was rolled back; infinite if fewer were."""
        found = np.sort(np.where(self.rolled_back, self.answered if answered else self.requests, np.inf))
        return float(found[max(0, int(np.ceil(part * len(found))) - 1)])


def fixed(candidate: Version, incumbent: Version, *, runs: int, longest: int) -> Ends:
    """A split in halves that only the test ends, looked at after every request."""
    draw = np.random.default_rng([SEED, runs, longest])
    evidence, line = Evidence(runs, candidate.outcomes), log(1 / Delivery().false_rollbacks)
    back, looked = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    requests, answered = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=np.int64)
    going = np.arange(runs)
    for _ in range(longest):
        given = draw.random(len(going)) < 0.5
        one, other = candidate.drawn(draw, len(going)), incumbent.drawn(draw, len(going))
        evidence.add(going, one * given[:, None], other * ~given[:, None])
        requests[going] += 1
        answered[going] += given
        looked[going] |= evidence.looked(going)
        back[going[evidence.worse(going) >= line]] = True
        going = going[~back[going]]
        if not len(going):
            break
    return Ends(back, requests, answered, looked)


def canary(candidate: Version, incumbent: Version, rules: Delivery, *, runs: int) -> Ends:
    """Canaries under these rules until they are rolled back or activated; time is not simulated.

    One of the rules' metrics has outcomes; the others take their part of the permitted false rollbacks.
    """
    draw = np.random.default_rng([SEED, runs])
    shares = np.array([part for part in rules.steps if part < 1])
    evidence, line = Evidence(runs, candidate.outcomes), log(len(rules.metrics) * len(shares) / rules.false_rollbacks)
    back, looked = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    requests, answered = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=np.int64)
    step, going = np.zeros(runs, dtype=np.intp), np.arange(runs)
    while len(going):
        others = draw.geometric(shares[step[going]]) - 1
        evidence.add(going, candidate.drawn(draw, len(going)), incumbent.several(draw, others))
        requests[going] += others + 1
        answered[going] += 1
        looked[going] |= evidence.looked(going)
        worse = evidence.worse(going)
        back[going[worse >= line]] = True
        further = going[(evidence.least(going) >= rules.minimum_requests) & (worse <= 0)]
        step[further] += 1
        evidence.clear(further)
        going = going[~back[going] & (step[going] < len(shares))]
    return Ends(back, requests, answered, looked)


CASES: dict[str, tuple[Version, Version]] = {
    "failures, 10 % of the incumbent's": (failing(0.1), failing(0.2)),
    "scores, mean 80, spread 25": (scored(80, 25), scored(70, 25)),
    "scores, mean 80, spread 15": (scored(80, 15), scored(70, 15)),
}
"""The incumbent, and a candidate that is 10 points worse."""


def main(arguments: list[str] | None = None) -> int:
    """All rows."""
    chosen = options(__doc__ or "", arguments)
    rows: list[Row] = []

    def add(what: str, unit: str, ours: float, n: int, ask: str = "", met: bool | None = None, **more: float) -> None:
        rows.append(Row(what, unit, ours, more, ask=ask or None, met=met, n=n))
        print(f"{what}: {ours:.4g} {unit} {more} {ask} {met}", flush=True)

    runs, longest = (20, 300) if chosen.quick else (200, 1500)
    for name, (incumbent, worse) in CASES.items():
        bad = fixed(worse, incumbent, runs=runs, longest=longest)
        what = f"{name}; half of the requests each"
        add(f"{what}; 10 points worse: rolled back", "%", 100 * bad.part, runs, "≥ 95 %", bad.part >= 0.95)
        add(f"{what}; 95 % of those within", "requests", bad.within(0.95), runs, median=bad.within(0.5))
        same = fixed(incumbent, incumbent, runs=runs, longest=longest)
        false, seen = 100 * same.part, 100 * float(same.looked.mean())
        add(f"{what}; equal: rolled back in {longest} requests", "%", false, runs, "≤ 5 %", false <= 5, looked=seen)
    rules, runs = Delivery(), 20 if chosen.quick else 200
    for name, (incumbent, worse) in CASES.items():
        bad = canary(worse, incumbent, rules, runs=runs)
        what = f"{name}; canary of 1, 5 and 25 %, {rules.minimum_requests} answers a step"
        add(f"{what}; 10 points worse: rolled back", "%", 100 * bad.part, runs, "≥ 95 %", bad.part >= 0.95)
        add(f"{what}; 95 % of those within", "requests", bad.within(0.95), runs, median=bad.within(0.5))
        of_candidate = [bad.within(part, answered=True) for part in (0.95, 0.5)]
        add(f"{what}; of them the candidate's", "requests", of_candidate[0], runs, median=of_candidate[1])
        same = canary(incumbent, incumbent, rules, runs=runs)
        false, seen = 100 * same.part, 100 * float(same.looked.mean())
        add(f"{what}; equal: rolled back", "%", false, runs, "≤ 5 %", false <= 5, looked=seen)
    emit(rows, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
