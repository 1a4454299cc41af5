"""Strengths from preferences: properties that the maximum of the Bradley-Terry likelihood has."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_statistics.bradley_terry import NotConnected, strengths, win_rates

pytestmark = pytest.mark.unit

NAMES = ("a", "b", "c", "d")
TIMES = st.integers(1, 40)


@st.composite
def met(draw: st.DrawFn) -> dict[tuple[str, str], float]:
    """Everybody beat everybody at least once."""
    names = NAMES[: draw(st.integers(2, 4))]
    return {(i, j): float(draw(TIMES)) for i in names for j in names if i != j}


def log_likelihood(wins: dict[tuple[str, str], float], found: dict[str, float]) -> float:
    return sum(times * math.log(found[i] / (found[i] + found[j])) for (i, j), times in wins.items())


@given(wins=met())
@pytest.mark.requirement("AM-3.3")
def test_expected_wins_are_the_observed_ones(wins: dict[tuple[str, str], float]) -> None:
    found = strengths(wins)
    assert sum(found.values()) == pytest.approx(1)
    for name in found:
        others = [other for other in found if other != name]
        expected = sum((wins[name, o] + wins[o, name]) * found[name] / (found[name] + found[o]) for o in others)
        assert expected == pytest.approx(sum(wins[name, o] for o in others), rel=1e-6)


@given(wins=met(), factor=st.floats(0.8, 1.25), who=st.integers(0, 3))
def test_no_other_strengths_are_more_likely(wins: dict[tuple[str, str], float], factor: float, who: int) -> None:
    found = strengths(wins)
    name = sorted(found)[who % len(found)]
    assert log_likelihood(wins, found | {name: found[name] * factor}) <= log_likelihood(wins, found) + 1e-9


@given(first=TIMES, second=TIMES)
def test_of_two_versions_the_strengths_are_their_win_rates(first: int, second: int) -> None:
    found = strengths({("a", "b"): first, ("b", "a"): second})
    assert found["a"] == pytest.approx(first / (first + second))


@given(wins=met())
def test_names_do_not_matter(wins: dict[tuple[str, str], float]) -> None:
    renamed = {(f"z{9 - ord(i) % 7}", f"z{9 - ord(j) % 7}"): times for (i, j), times in wins.items()}
    found, again = strengths(wins), strengths(renamed)
    for name, strength in found.items():
        assert again[f"z{9 - ord(name) % 7}"] == pytest.approx(strength, rel=1e-6)


def test_versions_that_never_met_get_strengths_over_a_third() -> None:
    wins = {("a", "b"): 6.0, ("b", "a"): 3.0, ("b", "c"): 6.0, ("c", "b"): 3.0}
    found = strengths(wins)
    assert found["a"] / found["c"] == pytest.approx(4)  # the odds 2 : 1 twice


@pytest.mark.parametrize(
    "wins",
    [{("a", "b"): 3.0}, {("a", "b"): 1.0, ("b", "a"): 1.0, ("c", "d"): 1.0, ("d", "c"): 1.0}, {}],
)
def test_what_has_no_finite_strengths_is_refused(wins: dict[tuple[str, str], float]) -> None:
    with pytest.raises(NotConnected):
        strengths(wins)


@given(first=TIMES, second=TIMES)
def test_of_two_versions_the_interval_is_that_of_the_log_odds(first: int, second: int) -> None:
    found = win_rates({("a", "b"): first, ("b", "a"): second})["a"]
    assert found.value == pytest.approx(first / (first + second))
    odds, width = math.log(first / second), 1.959964 * math.sqrt(1 / first + 1 / second)
    for end, expected in ((found.low, odds - width), (found.high, odds + width)):
        assert math.log(end / (1 - end)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(wins=met())
def test_intervals_hold_their_rates_and_shrink_with_more_preferences(wins: dict[tuple[str, str], float]) -> None:
    few, many = win_rates(wins), win_rates({pair: 9 * times for pair, times in wins.items()})
    for name, rate in few.items():
        assert 0 < rate.low < rate.value < rate.high < 1
        assert many[name].value == pytest.approx(rate.value, rel=1e-6)
        assert many[name].high - many[name].low < rate.high - rate.low


def test_the_interval_holds_the_true_win_rate_in_95_of_100_comparisons() -> None:
    true, drawn, held = {"a": 0.5, "b": 0.3, "c": 0.2}, np.random.default_rng(7), dict.fromkeys("abc", 0)
    runs = 600
    for _ in range(runs):
        wins: dict[tuple[str, str], float] = {}
        for i, j in (("a", "b"), ("a", "c"), ("b", "c")):
            wins[i, j] = float(drawn.binomial(40, true[i] / (true[i] + true[j])))
            wins[j, i] = 40 - wins[i, j]
        for name, rate in win_rates(wins).items():
            expected = sum(true[name] / (true[name] + true[other]) for other in true if other != name) / 2
            held[name] += rate.low <= expected <= rate.high
    assert all(0.93 <= count / runs <= 0.97 for count in held.values()), held
