"""The generated classes keep the contract: round trips, rules, forward compatibility."""

import json
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet_events import v1
from fleet_events.decode import decode_event
from fleet_events.message import Event
from fleet_events.protobuf import _pool
from fleet_events.topology import TOPOLOGY

pytestmark = pytest.mark.unit


def made(message: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Messages with these fields. (`st.builds` would also fill in the wire's names, which the signature shows.)"""
    return st.fixed_dictionaries(fields).map(lambda values: message(**values))


DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NUMBER = st.floats(0, 100, allow_nan=False)
BLOB = made(v1.Blob, uri=NAME.map("s3://lorafleet/{}".format), sha256=DIGEST, bytes=st.integers(0, 2**62))
COMPLETED = made(
    v1.TrainingCompleted,
    job_id=NAME,
    domain=NAME,
    method=st.sampled_from(["lora", "rslora", "qlora", "dora"]),
    base_model=made(v1.BaseModel, name=NAME, revision=DIGEST),
    dataset=made(v1.Dataset, dataset_id=NAME, blob=BLOB, samples=st.integers(0, 2**31 - 1)),
    configuration=st.just("{}"),
    configuration_sha256=DIGEST,
    checkpoint=BLOB,
    checkpoint_config=BLOB,
    artifact=made(
        v1.Artifact,
        blob=BLOB,
        rank=st.integers(1, 512),
        alpha=st.floats(0.001, 512),
        target_modules=st.lists(TEXT, max_size=3).map(tuple),
    ),
    report=BLOB,
    metrics=st.dictionaries(TEXT, NUMBER, max_size=3),
    probe=st.none() | made(v1.Probe, prompt=TEXT, top_ids=st.lists(st.integers(0, 2**31 - 1)).map(tuple)),
    description=TEXT,
    auto_approve_threshold=st.none() | NUMBER,
    finished_at=st.none()
    | st.datetimes(timezones=st.timezones(), allow_imaginary=False).filter(
        # Python finds a time that a clock shows twice unequal to any time of another zone, itself included.
        lambda when: 1 < when.year < 9998 and when.utcoffset() == when.replace(fold=1 - when.fold).utcoffset()
    ),
)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(COMPLETED)
def test_an_event_comes_back_equal_from_its_json(event: v1.TrainingCompleted) -> None:
    assert decode_event(event.type_name, "application/json", event.to_json()) == event


@quick
@given(COMPLETED)
def test_googles_own_runtime_reads_our_json_and_we_read_its_binary(event: v1.TrainingCompleted) -> None:
    message = message_factory.GetMessageClass(_pool().FindMessageTypeByName(event.type_name))()
    json_format.Parse(event.to_json(), message)
    assert decode_event(event.type_name, "application/protobuf", message.SerializeToString()) == event


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_value_error(body: bytes) -> None:
    for content_type in ("application/json", "application/protobuf"):
        try:
            decode_event("lorafleet.events.v1.TrainingRequested", content_type, body)
        except ValueError as error:
            assert str(error)


def test_fields_are_lower_camel_on_the_wire_and_defaults_are_left_out() -> None:
    event = v1.TrainingRequested(domain="shop", hyperparameters=v1.Hyperparameters(learning_rate=0.001))
    assert json.loads(event.to_json()) == {"domain": "shop", "hyperparameters": {"learningRate": 0.001}}


def test_sixty_four_bit_integers_travel_as_strings_and_are_read_as_numbers_too() -> None:
    blob = {"uri": "s3://b/k", "sha256": "0" * 64, "bytes": 7}
    assert v1.Blob.model_validate(blob).model_dump(mode="json")["bytes"] == "7"
    assert v1.Blob.model_validate(blob | {"bytes": "7"}).bytes == 7


@pytest.mark.parametrize(
    ("event", "body", "field"),
    [
        (v1.TrainingRequested, {}, "domain"),
        (v1.TrainingRequested, {"domain": "Not A Domain"}, "domain"),
        (v1.TrainingRequested, {"domain": "d", "method": "full"}, "method"),
        (v1.TrainingRequested, {"domain": "d", "version": "1.2"}, "version"),
        (v1.TrainingRequested, {"domain": "d", "hyperparameters": {"rank": 0}}, "hyperparameters.rank"),
        (v1.TrainingRequested, {"domain": "d", "hyperparameters": {"rank": 4.5}}, "hyperparameters.rank"),
        (v1.TrainingRequested, {"domain": "d", "autoApproveThreshold": 101}, "autoApproveThreshold"),
        (v1.FeedbackRecorded, {"generationId": "g", "rating": 0}, "rating"),
        (v1.FeedbackRecorded, {"generationId": "g", "rating": True and "x"}, "rating"),
        (v1.SampleRecorded, {"domain": "d", "prompt": "", "completion": "c"}, "prompt"),
        (v1.SampleRecorded, {"domain": "d", "prompt": 5, "completion": "c"}, "prompt"),
    ],
)
def test_a_broken_rule_names_its_field(event: type[Event], body: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        event.from_json(json.dumps(body))
    assert [".".join(map(str, fault["loc"])) for fault in caught.value.errors()] == [field]


def test_an_event_cannot_be_changed_once_made() -> None:
    event = v1.TrainingRequested(domain="shop")
    with pytest.raises(ValidationError):
        event.domain = "other"  # type: ignore[misc]


def test_every_event_of_the_contract_has_exactly_one_row_and_every_subject_is_its_own() -> None:
    assert sorted(row.event.__name__ for row in TOPOLOGY) == sorted(event.__name__ for event in v1.EVENTS)
    subjects = [row.subject for row in TOPOLOGY]
    assert len(subjects) == len(set(subjects))
    assert all(subject.startswith("lorafleet.v1.") and subject.count(".") == 3 for subject in subjects)
