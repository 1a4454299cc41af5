"""A short, seeded run of the simulated error rates; `python -m benchmarks.decision_rules` is the long one."""

from functools import partial

import pytest

from benchmarks.decision_rules import ADAPTERS, SAMPLES, alarms, approvals, coverage, graded, right_or_wrong
from fleet_statistics.intervals import mean_score
from services.registry.policy import Mode, Policy


@pytest.mark.requirement("LA-5.1")
@pytest.mark.parametrize("kind", list(ADAPTERS))
@pytest.mark.parametrize("samples", SAMPLES)
def test_an_adapter_of_truly_80_points_is_hardly_ever_approved_at_85(kind: str, samples: int) -> None:
    assert approvals(partial(ADAPTERS[kind], 80), samples, 60) <= 0.05


def test_the_score_alone_approves_it_far_too_often() -> None:
    assert approvals(partial(right_or_wrong, 80), 20, 60, policy=Policy(mode=Mode.SIMPLE)) > 0.1


def test_ten_tries_of_such_adapters_bring_none_through() -> None:
    assert approvals(partial(ADAPTERS["rare failures"], 80), 50, 20, tries=10) <= 0.05


def test_a_good_adapter_is_approved_on_enough_samples() -> None:
    assert approvals(partial(graded, 95), 100, 40) >= 0.95


@pytest.mark.parametrize(("mean", "samples"), [(90, 10), (97, 10), (97, 20)])
def test_the_interval_covers_the_truth_at_the_ceiling(mean: float, samples: int) -> None:
    found = coverage(partial(right_or_wrong, mean), mean, samples, 100, lambda scores: mean_score(list(scores)))
    assert found >= 0.93


@pytest.mark.requirement("LA-3.4")
def test_equal_versions_seldom_raise_an_alarm() -> None:
    assert sum(alarms(samples, 0, 25, 200) for samples in (10, 20, 50)) / 3 <= 0.05


@pytest.mark.requirement("LA-3.4")
def test_a_fall_of_ten_points_raises_an_alarm_on_fifty_samples() -> None:
    assert alarms(50, 10, 20, 100) >= 0.8
