"""Sequential detection of a change by e-detectors: pure, and valid however often it is looked at.

An e-value has a mean of at most 1 while nothing has changed. The detector multiplies them from the best starting point,
M_t = max(M_{t-1}, 1) · e_t, and reports a change when M_t reaches N. Of several bets on one observation, each has its
own M_t, and their mean is what counts. While nothing has changed, the expected number of observations until a report is
at least N, and the chance of one within n observations at most n / N.

Source: Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", New England
Journal of Statistics in Data Science, 2023. The detector above is their CUSUM form: Page's of 1954 with e-values for
likelihood ratios. It never exceeds their Shiryaev-Roberts form, from which both bounds follow.
"""

import bisect
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

BETS = (0.2, 0.4, 0.6, 0.8)
"""The smaller, the more is bet on p-values near 0."""


@dataclass(frozen=True)
class Detected:
    """`seen` observations, the detector's value after the last, and after how many it first reached the threshold."""

    seen: int
    value: float
    at: int | None


def detect(e_values: Iterable[Sequence[float]], threshold: float) -> Detected:
    """Follow e-values, one for each bet on an observation, until the first alarm or to their end."""
    products: list[float] = []
    value, seen = 0.0, 0
    for seen, bets in enumerate(e_values, start=1):
        products = [max(before, 1.0) * bet for before, bet in zip(products or [1.0] * len(bets), bets, strict=True)]
        value = sum(products) / len(products)
        if value >= threshold:
            return Detected(seen, value, seen)
    return Detected(seen, value, None)


def fall_e_values(values: Iterable[float], expected: float, fall: float) -> Iterator[tuple[float]]:
    """E-values of bounded observations against "their mean is at least `expected` - `fall` / 2".

    Args:
        values: 0 to 1 each.
        expected: the mean as long as nothing has changed, 0 to 1.
        fall: how far the mean falls in the change that is to be found, above 0.

    Each is 1 + λ (m - x) with the λ that grows fastest where observations are 0 or 1 and their mean has fallen so far
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B, 2024).
    """
    bound = min(max(expected - fall / 2, 1e-3), 1 - 1e-3)
    fallen = min(max(expected - fall, 0.0), bound)
    stake = min((bound - fallen) / (bound * (1 - bound)), 0.99 / (1 - bound))
    for value in values:
        yield (1 + stake * (bound - value),)


def distance_e_values(reference: Sequence[float], distances: Iterable[float]) -> Iterator[tuple[float, ...]]:
    """E-values of distances against "they come from where the reference distances come from, in any order".

    The p-value of a distance is its rank among the reference and all distances before it, ties drawn apart; such
    p-values are independent and uniform while all are exchangeable, for any distribution (Vovk, Nouretdinov and
    Gammerman, "Testing exchangeability on-line", ICML 2003). Bets that p is small have the e-values ε p^(ε-1), one for
    each of `BETS`. The draw is the same at every call, so that the same distances give the same e-values.
    """
    draw = random.Random(0)  # noqa: S311 - ties are drawn apart, no secret
    known = sorted(reference)
    for distance in distances:
        left, right = bisect.bisect_left(known, distance), bisect.bisect_right(known, distance)
        larger, equal = len(known) - right, right - left + 1
        p_value = max((larger + draw.random() * equal) / (len(known) + 1), 1e-12)
        yield tuple(bet * p_value ** (bet - 1) for bet in BETS)
        known.insert(right, distance)
