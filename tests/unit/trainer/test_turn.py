"""Giving way to jobs that go before, and for how long."""

import pytest

from services.trainer.runs.queue_order import PATIENCE, Turn

pytestmark = [pytest.mark.unit, pytest.mark.requirement("TP-4.3")]


def test_a_worker_gives_way_until_its_patience_ends_and_takes_one_job_then() -> None:
    turn = Turn()
    begun = 5.0  # a machine that was started just now
    assert [turn.gives_way(begun + second) for second in range(0, int(PATIENCE) + 1, 10)] == [True] * 7
    assert not turn.gives_way(begun + PATIENCE + 10)
    assert turn.gives_way(begun + PATIENCE + 11), "the next job that is not next gives way anew"


def test_time_that_a_worker_spent_training_is_no_time_of_giving_way() -> None:
    turn = Turn()
    assert turn.gives_way(0.0)
    assert turn.gives_way(PATIENCE * 10)
    assert turn.gives_way(PATIENCE * 10 + 10)
