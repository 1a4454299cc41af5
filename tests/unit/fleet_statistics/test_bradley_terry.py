"""Strengths from preferences: properties that the maximum of the Bradley-Terry likelihood has."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_statistics.bradley_terry import NotConnected, strengths

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
