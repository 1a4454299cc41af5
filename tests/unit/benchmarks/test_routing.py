"""The benchmark of routing counts what it says."""

import numpy as np
import pytest

from benchmarks.routing import Split, Task, held_out_mask, judged, profiles, with_evidence


def task(inside: np.ndarray, labels: list[int], outside: np.ndarray) -> Task:
    train = Split(np.repeat(np.eye(2, dtype=np.float32), 50, axis=0), np.repeat(np.arange(2), 50))
    return Task(("a", "b"), train, Split(inside, np.array(labels)), outside)


def test_shares_are_of_all_queries() -> None:
    inside = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6], [0.1, 0.2]], dtype=np.float32)
    outside = np.array([[0.1, 0.1], [0.9, 0.1]], dtype=np.float32)
    found = judged(task(inside, [0, 1, 1, 0], outside), inside, outside, np.array([0.5, 0.5]))
    assert (found.right, found.rejected, found.refused) == (0.5, 0.25, 0.5)
    assert (found.top, found.five) == (0.5, 1)


def test_separate_adapters_are_told_apart_as_the_service_does() -> None:
    queries = np.eye(2, dtype=np.float32)
    routing_task = task(queries, [0, 1], np.array([[0.1, 0.1]], dtype=np.float32))
    found = with_evidence(routing_task, profiles(routing_task, 0))
    assert (found.right, found.refused) == (1, 1)
    assert held_out_mask(100, 0).mean() == pytest.approx(0.8)
