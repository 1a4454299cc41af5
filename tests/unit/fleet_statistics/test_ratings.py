"""Ratings and preferences: intervals that hold their value, tests that keep their level."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_statistics.ratings import chance_of_equal_preference, chance_of_equal_ratings, mean_rating, win_rate

pytestmark = pytest.mark.unit


def test_a_mean_rating_lies_in_its_interval_which_narrows() -> None:
    few, many, more = (mean_rating({5: n, 3: n}) for n in (5, 500, 50_000))
    assert few is not None
    assert many is not None
    assert more is not None
    assert few.value == many.value == more.value == 4
    assert 1 <= few.low < many.low < more.low < 4 < more.high < many.high < few.high <= 5
    assert mean_rating({1: 0}) is None


def test_equal_ratings_are_seldom_told_apart_and_different_ones_are() -> None:
    rng = np.random.default_rng(3)

    def rated(n: int) -> dict[int, int]:
        values, times = np.unique(rng.choice([1, 2, 3, 4, 5], p=[0.1, 0.1, 0.2, 0.3, 0.3], size=n), return_counts=True)
        return dict(zip(values.tolist(), times.tolist(), strict=True))

    chances = [chance_of_equal_ratings(rated(30), rated(25)) for _ in range(200)]
    assert sum(chance <= 0.05 for chance in chances) <= 18  # 5 % of 200 and its spread
    assert chance_of_equal_ratings({5: 20}, {2: 20}) < 0.001
    assert chance_of_equal_ratings({5: 1}, {}) == 1


def test_a_preference_is_tested_exactly_and_ties_count_half_in_the_rate() -> None:
    assert chance_of_equal_preference(5, 0) == 2 / 2**5
    assert chance_of_equal_preference(4, 4) == 1
    assert chance_of_equal_preference(2600, 2500) == pytest.approx(0.1657, abs=0.002)
    rate = win_rate(6, 2, 2)
    assert rate is not None
    assert rate.value == 0.7
    assert 0 < rate.low < 0.7 < rate.high < 1
    assert win_rate(0, 0, 0) is None
