"""A training request as it comes: whatever its bytes are, a refusal names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events import v1
from services.trainer.jobs.request import Reading, read_request

pytestmark = pytest.mark.unit


def reading_of(values: str, field: str = "hyperparameters") -> Reading:
    return read_request(b'{"domain": "shop", "%s": %s}' % (field.encode(), values.encode()))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ('{"seed": 4294967296}', "hyperparameters.seed"),
        ('{"seed": 2147483648}', "hyperparameters.seed"),
        ('{"maxSteps": 2147483648}', "hyperparameters.maxSteps"),
        ('{"alpha": ' + "9" * 4000 + "}", "hyperparameters.alpha"),
        ('{"alpha": ' + "9" * 100_000 + "}", "hyperparameters.alpha"),
        ('{"alpha": NaN}', "hyperparameters.alpha"),
        ('{"alpha": -Infinity}', "hyperparameters.alpha"),
        ('{"learningRate": 1e999}', "hyperparameters.learningRate"),
        ('{"targetModules": ["' + "x" * 5000 + '"]}', "hyperparameters.targetModules.0"),
        (json.dumps({"targetModules": ["q_proj"] * 65}), "hyperparameters.targetModules"),
        ('{"alpha": "\\u0000"}', "hyperparameters.alpha"),
    ],
    ids=lambda value: value[:40],
)
def test_a_value_out_of_bounds_is_refused_by_its_field(values: str, field: str) -> None:
    reading = reading_of(values)
    assert [fault.field for fault in reading.faults] == [field]
    assert len(str(reading.faults[0])) < 1000


def test_every_body_that_is_no_json_object_is_refused() -> None:
    for body in (b"", b"[1]", b"\xff\xfe", b"[" * 300_000, b'{"a":' * 100_000, b'{"domain": "shop"', b"9" * 10_000):
        reading = read_request(body)
        assert reading.request is None
        assert len(str(reading.faults[0])) < 1000


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner:
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*v1.Hyperparameters.model_fields, "x"]), inner)))  # fmt: skip
def test_no_value_of_any_kind_is_more_than_a_fault(value: Any) -> None:
    reading = reading_of(json.dumps(value))
    assert reading.faults or reading.request is not None
