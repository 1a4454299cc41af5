"""A short, seeded run of the simulated rollouts; `python -m benchmarks.progressive_delivery` is the long one."""

import pytest

from benchmarks.progressive_delivery import CASES, canary, fixed
from services.registry.rollout.rules import Delivery

FAILURES, WIDE, _ = CASES.values()


@pytest.mark.requirement("LA-3.4")
def test_a_candidate_with_ten_points_more_failures_is_rolled_back_within_1800_requests() -> None:
    incumbent, worse = FAILURES
    assert fixed(worse, incumbent, runs=40, longest=1800).part >= 0.95


@pytest.mark.requirement("LA-3.4")
def test_a_candidate_that_scores_ten_points_lower_is_rolled_back_within_1000_requests() -> None:
    incumbent, worse = WIDE
    assert fixed(worse, incumbent, runs=20, longest=1000).part >= 0.95


@pytest.mark.requirement("LA-3.4")
def test_equal_candidates_are_seldom_rolled_back_though_every_request_is_looked_at() -> None:
    incumbent, _ = FAILURES
    found = fixed(incumbent, incumbent, runs=60, longest=400)
    assert found.part <= 0.05
    assert found.looked.mean() > 0.1, "the same looks with a z test raise false alarms: the simulation can fail"


@pytest.mark.requirement("LA-3.4")
def test_a_worse_candidate_does_not_get_through_the_default_canary() -> None:
    incumbent, worse = FAILURES
    found = canary(worse, incumbent, Delivery(), runs=40)
    assert found.part >= 0.95
    assert found.within(0.95, answered=True) <= 600
    assert canary(incumbent, incumbent, Delivery(), runs=40).part <= 0.05
