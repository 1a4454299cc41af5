"""Intervals and comparisons, against scipy and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluator.statistics import chance_of_fall, compare, holm, mean_score, pass_rate

scores = st.lists(st.floats(0, 100), min_size=1, max_size=40)


@given(scores)
@settings(deadline=None, max_examples=40)
def test_the_interval_holds_the_mean_within_the_scale_and_repeats(values):
    found = mean_score(values)
    assert 0 <= found.low <= found.value <= found.high <= 100 + 1e-9
    assert found.value == pytest.approx(np.mean(values))
    assert found == mean_score(values)


def test_one_sample_says_nothing_of_the_spread():
    found = mean_score([90.0])
    assert (found.value, found.low, found.high) == (90.0, 0.0, 100.0)


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="scores"):
        mean_score([])
    with pytest.raises(ValueError, match="passed"):
        pass_rate(0, 0)


def test_the_bootstrap_interval_agrees_with_scipys():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).beta(5, 2, 40) * 100
    theirs = scipy_stats.bootstrap((values,), np.mean, method="BCa", n_resamples=10_000, rng=1).confidence_interval
    ours = mean_score(list(values))
    assert ours.low == pytest.approx(theirs.low, abs=0.4)
    assert ours.high == pytest.approx(theirs.high, abs=0.4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Scores as they fall in practice: most right, some wrong. 200 evaluations of 40 samples."""
    generator = np.random.default_rng(11)
    truth = 0.7 * 95 + 0.3 * 40
    covered = 0
    for _ in range(200):
        right = generator.random(40) < 0.7
        values = np.where(right, generator.normal(95, 3, 40), generator.normal(40, 10, 40)).clip(0, 100)
        found = mean_score(list(values))
        covered += found.low <= truth <= found.high
    assert 0.9 <= covered / 200 <= 0.99


@pytest.mark.requirement("LA-3.3")
@pytest.mark.parametrize("passed", [0, 1, 18, 20])
def test_the_pass_rate_has_wilsons_interval(passed):
    scipy_stats = pytest.importorskip("scipy.stats")
    theirs = scipy_stats.binomtest(passed, 20).proportion_ci(0.95, method="wilson")
    ours = pass_rate(passed, 20)
    assert ours.value == passed / 20
    assert ours.low == pytest.approx(theirs.low, abs=1e-6)
    assert ours.high == pytest.approx(theirs.high, abs=1e-6)


@pytest.mark.requirement("LA-3.4")
def test_a_version_that_is_worse_on_the_same_samples_is_a_regression():
    generator = np.random.default_rng(5)
    old = {f"s{i}": float(v) for i, v in enumerate(generator.uniform(60, 95, 30))}
    new = {i: v - float(generator.normal(6, 4)) for i, v in old.items()}
    fell = (list(np.linspace(4, 6, 30)), list(np.linspace(7, 9, 30)))
    same = (list(np.linspace(4, 6, 30)), list(np.linspace(4, 6, 30)))
    found = compare(new, old, {"accuracy": fell, "style": same})
    assert found is not None
    assert found.regression
    assert found.criteria == ("accuracy",)
    assert found.difference.value == pytest.approx(np.mean([new[i] - old[i] for i in old]))


def test_noise_and_improvement_are_no_regression():
    generator = np.random.default_rng(6)
    old = {f"s{i}": float(v) for i, v in enumerate(generator.uniform(60, 95, 30))}
    noisy = compare({i: v + float(generator.normal(0, 5)) for i, v in old.items()}, old, {})
    better = compare({i: v + 3 for i, v in old.items()}, old, {})
    assert noisy is not None
    assert not noisy.regression
    assert better is not None
    assert not better.regression


def test_versions_without_common_samples_are_not_compared():
    assert compare({"a": 1.0}, {"b": 2.0}, {}) is None
    assert compare({"a": 1.0}, {"a": 2.0}, {}) is None


def test_holm_stops_at_the_first_that_is_not_significant():
    assert holm({"a": 0.04, "b": 0.001, "c": 0.02, "d": 0.013}, 0.05) == ("b", "d", "c", "a")
    assert holm({"a": 0.04, "b": 0.03, "c": 0.01}, 0.05) == ("c",)
    assert holm({"a": 0.06}, 0.05) == ()


def test_the_sign_flip_test_rejects_a_true_null_about_as_often_as_it_says():
    generator = np.random.default_rng(8)
    rejected = sum(chance_of_fall(generator.normal(0, 1, 15)) <= 0.05 for _ in range(150))
    assert rejected / 150 < 0.1
    assert chance_of_fall(np.zeros(10)) == 1.0
