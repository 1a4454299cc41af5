"""Requests a minute, by caller."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.errors import RateLimited
from services.inference.http.rate_limit import MOST_CALLERS, RateLimit


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


def test_callers_without_number_and_with_long_names_take_bounded_memory() -> None:
    clock = Clock()
    limit = RateLimit(6, clock)
    tracemalloc.start()
    try:
        for number in range(3 * MOST_CALLERS):
            clock.time += 1e-4
            limit.take(f"{number}" + "x" * 4000)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(limit) == MOST_CALLERS
    assert used < 4 << 20


def test_a_caller_keeps_its_empty_bucket_while_others_come_and_go() -> None:
    clock = Clock()
    limit = RateLimit(6, clock)
    for _ in range(6):
        limit.take("a")
    for number in range(MOST_CALLERS - 1):
        limit.take(f"other {number}")
    with pytest.raises(RateLimited):
        limit.take("a")


def test_callers_that_have_been_idle_for_a_minute_are_forgotten() -> None:
    clock = Clock()
    limit = RateLimit(6, clock)
    for number in range(1000):
        limit.take(f"{number}")
    clock.time = 60
    for _ in range(1000):
        clock.time += 0.2
        try:
            limit.take("still here")
        except RateLimited:
            continue
    assert len(limit) == 1


def test_a_subject_with_half_a_surrogate_is_counted_as_any_other() -> None:
    limit = RateLimit(1, Clock())
    limit.take("\ud800")
    with pytest.raises(RateLimited):
        limit.take("\ud800")
