"""The pure parts of settling and relaying."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_kit.cloudevents import Outgoing
from fleet_kit.dead_letter_writer import dead_subject
from fleet_kit.errors import Problem
from fleet_kit.outbox import Waiting
from fleet_kit.relay import distinct_entities
from fleet_kit.settle import backoff

pytestmark = pytest.mark.unit


def test_waits_grow_and_end_at_fifteen_seconds() -> None:
    waits = [backoff(deliveries) for deliveries in range(1, 100)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits == sorted(waits)
    assert waits[-1] == 15.0


def test_a_dead_letter_lies_under_its_service() -> None:
    assert dead_subject("registry-training_completed", "12-5") == "lorafleet.dlq.registry.training_completed.12-5"


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=20))
def test_a_window_never_holds_two_events_of_one_thing_and_always_moves_on(entities: list[str]) -> None:
    rows = [Waiting(position, Outgoing("id", "subject", entity, {}, b"")) for position, entity in enumerate(entities)]
    window = [row.event.entity for row in distinct_entities(rows)]
    assert window
    assert window == entities[: len(window)]
    assert len(set(window)) == len(window)
    assert len(window) == len(entities) or entities[len(window)] in window


def test_a_problem_carries_its_field_and_extensions() -> None:
    body = Problem(409, "Version exists", "take 1.0.1", field="version", next_version="1.0.1").body()
    assert body == {
        "type": "about:blank",
        "title": "Version exists",
        "status": 409,
        "detail": "take 1.0.1",
        "field": "version",
        "next_version": "1.0.1",
    }
