"""Intervals against exact ones and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_statistics.intervals import confidence_of, mean_score, pass_rate

scores = st.lists(st.floats(0, 100), min_size=1, max_size=40)


@given(scores, st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_the_interval_holds_the_mean_within_the_scale_and_repeats(values, missing):
    found = mean_score(values, missing=missing)
    assert 0 <= found.low <= found.value <= found.high <= 100
    assert found.value == pytest.approx(np.mean(values))
    assert found == mean_score(values, missing=missing)


@given(scores, st.data())
@settings(deadline=None, max_examples=40)
def test_a_better_answer_never_lowers_an_end_of_the_interval(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    better = [*values[:place], data.draw(st.floats(values[place], 100)), *values[place + 1 :]]
    before, after = mean_score(values), mean_score(better)
    assert after.low >= before.low - 1e-6
    assert after.high >= before.high - 1e-6


def test_one_sample_says_next_to_nothing():
    found = mean_score([90.0])
    assert found.value == 90
    assert found.low < 3
    assert found.high > 99


@pytest.mark.parametrize("values", [[], [float("nan")], [101.0], [-0.1]])
def test_scores_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="scores"):
        mean_score(values)


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="passed"):
        pass_rate(0, 0)
    with pytest.raises(ValueError, match="missing"):
        mean_score([90.0], missing=-1)
    with pytest.raises(ValueError, match="missing"):
        pass_rate(1, 1, missing=-1)
    with pytest.raises(ValueError, match="submission"):
        confidence_of(0)


@pytest.mark.parametrize(("right", "samples"), [(10, 10), (20, 20), (50, 50), (45, 51), (9, 10), (5, 10), (0, 20)])
@pytest.mark.parametrize("confidence", [0.95, 0.9995])
def test_right_and_wrong_alone_have_the_exact_interval_of_clopper_and_pearson(right, samples, confidence):
    scipy_stats = pytest.importorskip("scipy.stats")
    exact = scipy_stats.binomtest(right, samples).proportion_ci(confidence, method="exact")
    found = mean_score([100.0] * right + [0.0] * (samples - right), confidence)
    assert found.low == pytest.approx(100 * exact.low, abs=0.2)
    assert found.high == pytest.approx(100 * exact.high, abs=0.2)


@pytest.mark.parametrize(("samples", "low"), [(10, 69.0), (20, 83.1), (50, 92.9), (100, 96.4)])
def test_scores_without_a_spread_still_leave_a_width(samples, low):
    found = mean_score([100.0] * samples)
    assert found.high == 100
    assert found.low == pytest.approx(low, abs=0.1)


def test_the_interval_is_the_quantile_of_dirichlet_weighted_means():
    generator = np.random.default_rng(3)
    values = generator.beta(9, 1, 40) * 100
    weights = generator.standard_exponential((200_000, 41))
    weights /= weights.sum(axis=1, keepdims=True)
    found = mean_score(list(values))
    assert found.low == pytest.approx(np.quantile(weights[:, :40] @ values, 0.025), abs=0.1)
    assert found.high == pytest.approx(100 - np.quantile(weights[:, :40] @ (100 - values), 0.025), abs=0.1)


def test_missing_samples_widen_both_ends_by_the_worst_they_could_be():
    scored, all_there = [90.0] * 30, mean_score([90.0] * 30)
    found = mean_score(scored, missing=10)
    assert found.value == 90
    assert found.low == pytest.approx(mean_score([90.0] * 30 + [0.0] * 10).low)
    assert found.high == pytest.approx(mean_score([90.0] * 30 + [100.0] * 10).high)
    assert found.low < 70 < all_there.low
    rate = pass_rate(30, 30, missing=10)
    assert rate.value == 1
    assert rate.low == pytest.approx(pass_rate(30, 40).low)


@pytest.mark.requirement("LA-3.3")
@pytest.mark.parametrize("passed", [0, 1, 18, 20])
def test_the_pass_rate_has_wilsons_interval(passed):
    scipy_stats = pytest.importorskip("scipy.stats")
    theirs = scipy_stats.binomtest(passed, 20).proportion_ci(0.95, method="wilson")
    ours = pass_rate(passed, 20)
    assert ours.value == passed / 20
    assert ours.low == pytest.approx(theirs.low, abs=1e-6)
    assert ours.high == pytest.approx(theirs.high, abs=1e-6)


def test_all_further_submissions_together_err_as_often_as_the_first():
    errors = [1 - confidence_of(number) for number in range(1, 2001)]
    assert errors[0] == pytest.approx(0.05)
    assert errors[1:] == sorted(errors[1:], reverse=True)
    assert sum(errors[1:]) == pytest.approx(0.05, abs=1e-4)
