"""Version against version on the same samples."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_statistics.paired import Comparison, compare, differences, holm


def by_sample(values) -> dict[str, float]:
    return {f"s{number:03}": float(value) for number, value in enumerate(values)}


def compared(new, old, **criteria) -> Comparison:
    pairs = {name: (by_sample(mine), by_sample(theirs)) for name, (mine, theirs) in criteria.items()}
    found = compare(by_sample(new), by_sample(old), pairs)
    assert found is not None
    return found


@pytest.mark.requirement("LA-3.4")
def test_a_version_that_is_worse_on_the_same_samples_is_a_regression():
    generator = np.random.default_rng(5)
    old = generator.uniform(60, 95, 30)
    new = old - generator.normal(6, 4, 30)
    low, high = np.linspace(4, 6, 30), np.linspace(7, 9, 30)
    found = compared(new, old, accuracy=(low, high), style=(low, low))
    assert found.regression
    assert found.samples == 30
    assert found.fallen == ("accuracy",)
    assert found.criteria["accuracy"].difference == pytest.approx(-3)
    assert found.difference.value == pytest.approx(np.mean(new - old))
    assert found.difference.low < found.difference.value < found.difference.high < 0


def test_noise_and_improvement_are_no_regression():
    generator = np.random.default_rng(6)
    old = generator.uniform(60, 95, 30)
    assert not compared(old + generator.normal(0, 5, 30), old).regression
    assert not compared(old + 3, old).regression
    assert not compared(old, old, accuracy=(old / 10, old / 10)).regression


@pytest.mark.requirement("LA-3.4")
def test_a_criterion_that_falls_in_every_sample_is_a_regression_even_where_the_others_make_up_for_it():
    old = np.full(20, 8.0)
    gained = old + 0.9
    others = dict.fromkeys(("relevance", "style", "completeness", "coherence"), (gained, old))
    # Weights 2.0, 1.5, 1.0, 1.5, 1.0 of 7.0: the overall score gains 0.7 points.
    overall = np.full(20, 80 + (-2 * 2.0 + 0.9 * 5.0) / 7.0 * 10)
    found = compared(overall, np.full(20, 80.0), accuracy=(old - 2, old), **others)
    assert found.difference.value > 0
    assert found.fallen == ("accuracy",)
    assert found.regression


def test_versions_without_common_samples_are_not_compared():
    assert compare({"a": 1.0}, {"b": 2.0}, {}) is None
    assert compare({"a": 1.0}, {"a": 2.0}, {}) is None


def test_only_what_both_have_is_compared():
    found = compare({"a": 80.0, "b": 80.0, "c": 0.0}, {"a": 90.0, "b": 90.0, "d": 0.0}, {})
    assert found is not None
    assert (found.samples, found.difference.value) == (2, -10)
    assert (found.difference.low, found.difference.high) == (-100, 100)  # two signs can be anything


def test_holm_corrects_for_the_number_of_criteria():
    found = holm({"a": 0.04, "b": 0.001, "c": 0.02, "d": 0.013})
    assert found == pytest.approx({"b": 0.004, "d": 0.039, "c": 0.04, "a": 0.04})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_the_interval_holds_the_shifts_that_the_test_does_not_reject():
    generator = np.random.default_rng(9)
    old = generator.uniform(60, 95, 25)
    new = old - generator.normal(4, 6, 25)
    found = compared(new, old)
    for shift, inside in ((found.difference.high - 0.01, True), (found.difference.high + 0.01, False)):
        assert (compared(new - shift, old).difference.high < 0) is not inside


def test_the_comparison_of_the_largest_data_set_fits_in_memory_and_time():
    generator = np.random.default_rng(2)
    old = generator.uniform(60, 95, 5000)
    found = compared(old - 1, old, accuracy=(old / 10, old / 10))
    assert found.regression
    assert found.difference.value == pytest.approx(-1)


def test_the_two_sided_interval_excludes_zero_exactly_where_the_test_rejects() -> None:
    rng = np.random.default_rng(7)
    for shift in (-3.0, -1.0, 0.0, 0.5, 1.0, 3.0):
        old = {str(i): float(50 + rng.normal(0, 3)) for i in range(30)}
        new = {i: value + shift + float(rng.normal(0, 3)) for i, value in old.items()}
        found = differences({"overall": new}, {"overall": old}, {"overall": 100.0})["overall"]
        outside = found.difference.low > 0 or found.difference.high < 0
        assert outside == (found.chance <= 0.05), (shift, found)
        assert found.samples == 30


def test_equal_versions_are_told_apart_in_one_case_of_twenty_at_most() -> None:
    rng = np.random.default_rng(11)
    rejected = 0
    for _ in range(100):
        new, old = ({str(i): float(rng.uniform(0, 10)) for i in range(12)} for _ in range(2))
        rejected += differences({"style": new}, {"style": old}, {"style": 10.0})["style"].chance <= 0.05
    assert rejected <= 11


def test_a_measure_with_one_common_sample_is_left_out() -> None:
    found = differences({"overall": {"a": 1.0, "b": 2.0}}, {"overall": {"a": 1.0}}, {"overall": 100.0})
    assert found == {}
