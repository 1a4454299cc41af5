"""Events are read in every form in which ProtoJSON printers of other languages write them, and in no other."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from pydantic import TypeAdapter, ValidationError

from fleet_events import v1
from fleet_events.protobuf import _pool
from fleet_events.protojson import Timestamp

pytestmark = pytest.mark.unit


def read(**fields: Any) -> v1.TrainingRequested:
    return v1.TrainingRequested.from_json(json.dumps({"domain": "shop", **fields}))


def fault(**fields: Any) -> str:
    """Where and what: the first line of a refusal."""
    with pytest.raises(ValidationError) as refused:
        read(**fields)
    [first] = refused.value.errors()
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def test_null_is_unset_for_text_numbers_lists_messages_and_optional_fields() -> None:
    nothing = dict.fromkeys(("targetModules", "maxSteps", "scheduler", "learningRate"))
    event = read(description=None, query=None, priority=None, exports=None, goldenDatasetId=None, minRating=None)
    assert event == v1.TrainingRequested(domain="shop")
    assert read(hyperparameters=None) == event
    assert read(hyperparameters={"rank": 4, **nothing}).hyperparameters == v1.Hyperparameters(rank=4)
    assert v1.Probe.model_validate_json('{"topIds": null, "prompt": null, "maxDelta": null}') == v1.Probe()


def test_null_for_a_needed_field_or_within_a_list_or_map_is_refused() -> None:
    assert fault(domain=None) == "domain: Field required"
    assert fault(exports=["gguf", None]).startswith("exports.1: Input should be 'gguf', 'gguf-q8_0'")
    body = {"metrics": {"loss": None}}
    with pytest.raises(ValidationError) as refused:
        v1.TrainingCompleted.model_validate_json(json.dumps(body))
    assert ("metrics", "loss") in [one["loc"] for one in refused.value.errors()]


def test_both_spellings_of_a_name_are_read_but_not_together() -> None:
    event = read(golden_dataset_id="g", hyperparameters={"max_steps": 5, "learningRate": 0.1})
    assert event == read(goldenDatasetId="g", hyperparameters={"maxSteps": 5, "learning_rate": 0.1})
    assert read(golden_dataset_id="g", goldenDatasetId=None) == read(goldenDatasetId="g")
    assert (
        fault(goldenDatasetId="g", golden_dataset_id="h")
        == ": goldenDatasetId is there twice, as golden_dataset_id too"
    )


@pytest.mark.parametrize("written", ["16", "1.6e1", "16.0", 16, 16.0])
def test_an_integer_may_be_quoted_and_may_have_an_exponent(written: object) -> None:
    assert read(hyperparameters={"rank": written}).hyperparameters == v1.Hyperparameters(rank=16)


@pytest.mark.parametrize("written", ["0.0002", "2e-4", "2E-4", 0.0002])
def test_a_number_may_be_quoted(written: object) -> None:
    assert read(hyperparameters={"learningRate": written}).hyperparameters == v1.Hyperparameters(learning_rate=0.0002)


@pytest.mark.parametrize(
    "written", [True, "true", "", " 16", "1_6", "0x10", "16.5", 16.5, "1e999999999", [16], "9" * 500]
)
def test_what_is_no_integer_is_refused_by_its_name(written: object) -> None:
    assert fault(hyperparameters={"rank": written}).startswith("hyperparameters.rank: Input should be a")


@pytest.mark.parametrize("written", [True, "", "1 ", "NaN", "Infinity", "-Infinity", "nan", "1e999", "0x1p-2"])
def test_what_is_no_finite_number_is_refused_by_its_name(written: object) -> None:
    assert fault(hyperparameters={"learningRate": written}).startswith(
        "hyperparameters.learningRate: Input should be a"
    )


def test_an_integer_is_bounded_by_its_size_where_no_rule_bounds_it() -> None:
    for number in (2**31, -(2**31) - 1, str(2**31)):
        with pytest.raises(ValidationError, match=r"topIds\.1"):
            v1.Probe.model_validate_json(json.dumps({"topIds": [7, number]}))
    assert v1.Probe.model_validate_json(json.dumps({"topIds": ["7", -(2**31)]})).top_ids == (7, -(2**31))


def test_a_time_has_a_zone_and_is_text() -> None:
    time = TypeAdapter(Timestamp)
    assert time.validate_json('"2026-01-31T13:00:00.123456789+01:00"') == datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)
    assert time.validate_json('"2026-01-31T12:00:00Z"') == datetime(2026, 1, 31, 12, tzinfo=UTC)
    for wrong in ('"2026-01-31T12:00:00"', "1769860800", '"1769860800 seconds"', "true"):
        with pytest.raises(ValidationError):
            time.validate_json(wrong)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -7, 1.0, 1e2, 1.5, 2**31 - 1, 2**31, -(2**31) - 1, "", "1", "-1", "+1", "01", "1.0", "1.", ".5",
    "1e2", "1.5", "x", "0x1", "1,0", [], ["1"], [1], [1.0], ["1e2"], [None], [True], [1.5], [[1]], [""], ["+1"], {}, {"a": 1},
)  # fmt: skip


@pytest.mark.parametrize("field", ["prompt", "topIds", "top_ids", "topLogits", "maxDelta"])
def test_googles_runtime_reads_and_refuses_the_same_values_of_a_field(field: str) -> None:
    """Text, lists of integers and of numbers, numbers. Google's Python takes `true` for the double 1, we do not."""
    probe = message_factory.GetMessageClass(_pool().FindMessageTypeByName("lorafleet.events.v1.Probe"))
    for value in VALUES:
        if field in ("topLogits", "maxDelta") and str(value) in ("True", "False", "[True]"):
            continue
        body = json.dumps({field: value})
        try:
            theirs = probe()
            json_format.Parse(body, theirs)
        except json_format.ParseError:
            with pytest.raises(ValidationError):
                v1.Probe.model_validate_json(body)
        else:
            ours = v1.Probe.model_validate_json(body)
            expected = (theirs.prompt, tuple(theirs.top_ids), tuple(theirs.top_logits), theirs.max_delta)  # type: ignore[attr-defined]
            assert (ours.prompt, ours.top_ids, ours.top_logits, ours.max_delta) == expected, body
