"""Requests a minute, by caller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.errors import RateLimited
from services.inference.rates import RateLimit


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_minutes_requests_may_come_at_once_and_then_one_at_a_time() -> None:
    clock = Clock()
    limit = RateLimit(6, clock)
    for _ in range(6):
        limit.take("a")
    with pytest.raises(RateLimited) as refused:
        limit.take("a")
    assert refused.value.retry_after == pytest.approx(10)
    limit.take("b")
    clock.time = 10
    limit.take("a")
    with pytest.raises(RateLimited):
        limit.take("a")


@given(st.integers(1, 30), st.lists(st.floats(0, 90), max_size=200))
def test_no_more_than_twice_the_limit_ever_pass_in_a_minute_and_waiting_as_told_always_helps(per_minute, gaps) -> None:
    clock = Clock()
    limit = RateLimit(per_minute, clock)
    passed: list[float] = []
    for gap in gaps:
        clock.time += gap / per_minute
        try:
            limit.take("a")
        except RateLimited as refused:
            clock.time += (refused.retry_after or 0) + 1e-6
            limit.take("a")
        passed.append(clock.time)
        assert sum(clock.time - then < 60 for then in passed) <= 2 * per_minute


def test_without_a_limit_nothing_is_counted() -> None:
    limit = RateLimit(0)
    for _ in range(1000):
        limit.take("a")
