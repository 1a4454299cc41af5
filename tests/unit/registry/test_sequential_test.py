"""The test that decides rollouts: what it may never do, and what it finds."""

from math import comb, exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.rollout import sequential_test as test

COUNT = st.integers(0, 400)


def failures(bad: int, of: int) -> dict[float, int]:
    return {0.0: of - bad, 1.0: bad}


def chance(bad: int, of: int, rate: float) -> float:
    return comb(of, bad) * rate**bad * (1 - rate) ** (of - bad)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.37, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("candidate", "active"), [(1, 1), (3, 8), (12, 12), (20, 2)])
def test_the_expected_evidence_against_an_equal_candidate_is_at_most_one(
    rate: float, candidate: int, active: int
) -> None:
    expected = sum(
        chance(bad, candidate, rate)
        * chance(worse, active, rate)
        * exp(test.log_evidence_worse(failures(bad, candidate), failures(worse, active)))
        for bad in range(candidate + 1)
        for worse in range(active + 1)
    )
    assert expected <= 1 + 1e-9


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_the_expected_evidence_of_one_sample_at_its_mean_is_at_most_one(rate: float) -> None:
    expected = sum(chance(bad, 15, rate) * exp(test.log_evidence_above(failures(bad, 15), rate)) for bad in range(16))
    assert expected <= 1 + 1e-9


def test_no_outcomes_are_no_evidence() -> None:
    assert test.log_evidence_worse({}, {}) <= 0
    assert test.log_evidence_worse(failures(5, 5), {}) <= 0.0


@given(COUNT, COUNT, COUNT, COUNT)
@settings(max_examples=60, deadline=None)
def test_a_candidate_cannot_be_shown_worse_and_better_at_once(a: int, b: int, c: int, d: int) -> None:
    one, other = failures(a, a + b), failures(c, c + d)
    assert min(test.log_evidence_worse(one, other), test.log_evidence_worse(other, one)) <= 1e-9


@given(COUNT, COUNT, st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_a_tolerance_only_takes_evidence_away(bad: int, good: int, tolerance: float) -> None:
    one, other = failures(bad, bad + good), failures(40, 400)
    without = test.log_evidence_worse(one, other)
    assert test.log_evidence_worse(one, other, tolerance) <= max(without, 0.0) + 0.7


def test_ten_points_more_failures_are_found_on_some_hundred_answers() -> None:
    assert test.log_evidence_worse(failures(120, 600), failures(60, 600)) > log(1 / 0.05)
    assert test.log_evidence_worse(failures(60, 600), failures(60, 600)) < 0


def test_the_interval_narrows_around_the_difference() -> None:
    low, high = test.interval(failures(800, 4000), failures(400, 4000), 0.05)
    assert low < 0.1 < high
    assert low > 0
    assert high - low < 0.08


def test_a_few_answers_leave_the_whole_range_open() -> None:
    low, high = test.interval(failures(1, 2), failures(1, 2), 0.05)
    assert (low, high) == pytest.approx((-1, 1), abs=0.2)


def test_the_interval_of_a_mean_holds_it() -> None:
    low, high = test.interval_of_mean(failures(300, 1000), 0.05)
    assert low < 0.3 < high
    assert high - low < 0.14
