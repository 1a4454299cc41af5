"""How often the gates decide wrongly: `python -m benchmarks.decision_rules [--quick] [--json FILE]`.

Simulated adapters of a known true score go through the evaluator's statistics and the registry's policies, as a real
one's scores do. Beside the default policy: the score alone (`simple`); beside the interval: the bootstrap (BCa).
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Row, emit, options
from fleet_statistics.intervals import Interval, confidence_of, mean_score
from fleet_statistics.paired import Comparison, compare
from services.registry.policy import Decision, Judgement, Mode, Policy, decide

SAMPLES = (10, 20, 50, 100)
CRITERIA = ("accuracy", "relevance", "style", "completeness", "coherence")
SEED = 13
Scores = NDArray[np.float64]
Adapter = Callable[[np.random.Generator, int], Scores]
"""Scores of that many samples, 0 to 100."""


def right_or_wrong(mean: float, draw: np.random.Generator, samples: int) -> Scores:
    """100 or 0."""
    return np.where(draw.random(samples) < mean / 100, 100.0, 0.0)


def graded(mean: float, draw: np.random.Generator, samples: int) -> Scores:
    """Spread over the whole scale: a beta distribution of concentration 8."""
    return np.asarray(100 * draw.beta(8 * mean / 100, 8 - 8 * mean / 100, samples))


def rare_failures(mean: float, draw: np.random.Generator, samples: int) -> Scores:
    """All the same but for one sample in sixteen, which is wrong altogether. Means up to 93.75."""
    return np.where(draw.random(samples) < 1 / 16, 0.0, mean * 16 / 15)


def right_or_middling(mean: float, draw: np.random.Generator, samples: int) -> Scores:
    """Near 98 where it is right and near 45 where not, as the judges score."""
    right = draw.random(samples) < (mean - 45) / 53
    return np.clip(np.where(right, 98.0, 45.0) + draw.uniform(-2, 2, samples), 0, 100)


ADAPTERS: Mapping[str, Callable[[float, np.random.Generator, int], Scores]] = {
    "right or wrong": right_or_wrong,
    "graded": graded,
    "rare failures": rare_failures,
    "right or middling": right_or_middling,
}


def bootstrap(scores: Scores) -> Interval:
    """The 95 % BCa interval of the mean, with 2,000 draws, as the peer."""
    from scipy import stats

    mean = float(scores.mean())
    if np.ptp(scores) < 1e-12:
        return Interval(mean, mean, mean)
    found = stats.bootstrap((scores,), np.mean, n_resamples=2000, rng=SEED).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def approved(policy: Policy, interval: Interval, samples: int) -> bool:
    """What the registry's policy makes of it."""
    judgement = Judgement(interval.value, interval.low, interval.high, decided=samples)
    return decide(policy, judgement).decision is Decision.APPROVE


def approvals(adapter: Adapter, samples: int, rounds: int, *, tries: int = 1, policy: Policy | None = None) -> float:
    """Part of the rounds in which one of the tries is approved; each try is another adapter of the same kind."""
    draw = np.random.default_rng([SEED, samples, tries])
    rules = policy or Policy()

    def one(number: int) -> bool:
        scores = adapter(draw, samples)
        # The score alone needs no interval.
        found = Interval(float(scores.mean()), 0.0, 100.0)
        if rules.mode is Mode.CONFIDENT:
            found = mean_score(list(scores), confidence_of(number))
        return approved(rules, found, samples)

    return float(np.mean([any(one(number) for number in range(1, tries + 1)) for _ in range(rounds)]))


def coverage(adapter: Adapter, mean: float, samples: int, rounds: int, interval: Callable[[Scores], Interval]) -> float:
    """Part of the rounds in which the interval holds the true mean."""
    draw = np.random.default_rng([SEED, samples])
    found = [interval(adapter(draw, samples)) for _ in range(rounds)]
    return float(np.mean([one.low <= mean + 1e-9 and one.high >= mean - 1e-9 for one in found]))


def versions(draw: np.random.Generator, samples: int, fall: float, spread: float) -> Comparison:
    """Two versions on the same samples, the new one `fall` points worse; `spread` is the deviation of the differences.

    Half of a score's variance is the sample's own; five criteria follow it with noise of their own.
    """
    sample = draw.normal(0, spread / np.sqrt(2), (samples, 1))

    def scored(mean: float) -> Scores:
        criteria = mean / 10 + (sample + draw.normal(0, spread / np.sqrt(2), (samples, 1))) / 10
        return np.asarray(criteria + draw.normal(0, 0.5, (samples, len(CRITERIA))))

    def overall(criteria: Scores) -> dict[str, float]:
        return _by_sample(criteria @ np.array([2.0, 1.5, 1.0, 1.5, 1.0]) / 7 * 10)

    new, old = scored(70 - fall), scored(70)
    pairs = {name: (_by_sample(new[:, at]), _by_sample(old[:, at])) for at, name in enumerate(CRITERIA)}
    found = compare(overall(new), overall(old), pairs)
    assert found is not None
    return found


def _by_sample(scores: Scores) -> dict[str, float]:
    return {f"s{number:04}": float(score) for number, score in enumerate(scores)}


def alarms(samples: int, fall: float, spread: float, rounds: int) -> float:
    """Part of the rounds in which a version that is `fall` points worse is a regression."""
    draw = np.random.default_rng([SEED, samples, int(spread), int(fall)])
    return float(np.mean([versions(draw, samples, fall, spread).regression for _ in range(rounds)]))


def main(arguments: list[str] | None = None) -> int:
    """All rows."""
    chosen = options(__doc__ or "", arguments)
    rounds = 40 if chosen.quick else 2000
    rows: list[Row] = []

    def add(what: str, ours: float, ask: str, met: bool, peers: dict[str, float], n: int = rounds) -> None:
        rows.append(Row(what, "%", 100 * ours, {k: 100 * v for k, v in peers.items()}, ask=ask, met=met, n=n))
        print(f"{what}: {100 * ours:.1f} % {peers} {ask} {met}", flush=True)

    simple = Policy(mode=Mode.SIMPLE)
    for kind, adapter in ADAPTERS.items():
        for samples in SAMPLES:
            ours = approvals(partial(adapter, 80), samples, rounds)
            alone = approvals(partial(adapter, 80), samples, rounds, policy=simple)
            what = f"truly 80 points, {kind}, n = {samples}: approved at 85"
            add(what, ours, "≤ 5 %", ours <= 0.05, {"simple": alone})
    for kind, adapter in ADAPTERS.items():
        tried = approvals(partial(adapter, 80), 50, rounds // 10, tries=10)
        uncounted = approvals(partial(adapter, 80), 50, rounds // 10, tries=10, policy=simple)
        what = f"truly 80 points, {kind}, n = 50: approved in one of 10 tries"
        add(what, tried, "≤ 5 %", tried <= 0.05, {"simple": uncounted}, rounds // 10)
    for mean in (92, 95, 98):
        for samples in (20, 50, 100):
            ours = approvals(partial(graded, mean), samples, rounds // 4)
            what = f"truly {mean} points, graded, n = {samples}: approved at 85"
            rows.append(Row(what, "%", 100 * ours, n=rounds // 4))
            print(f"{what}: {100 * ours:.1f} %", flush=True)
    for mean in (90, 97):
        for samples in (10, 20):
            ours = coverage(partial(right_or_wrong, mean), mean, samples, rounds, lambda s: mean_score(list(s)))
            peer = coverage(partial(right_or_wrong, mean), mean, samples, rounds // 4, bootstrap)
            what = f"truly {mean} points, right or wrong, n = {samples}: covered by the 95 % interval"
            add(what, ours, "≥ 95 %", ours >= 0.95, {"bootstrap": peer})
    for spread in (15, 25):
        for samples in (10, 20, 50):
            false = alarms(samples, 0, spread, rounds)
            add(f"equal versions, spread {spread}, n = {samples}: alarm", false, "≤ 5 %", false <= 0.05, {})
        power = alarms(50, 10, spread, rounds // 4)
        add(f"10 points worse, spread {spread}, n = 50: alarm", power, "≥ 80 %", power >= 0.8, {}, rounds // 4)
    emit(rows, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
