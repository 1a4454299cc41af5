"""CloudEvents in structured mode, as SDKs of other languages publish them, are the same events as in binary mode."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import json_format, message_factory

from fleet_events import v1
from fleet_events.protobuf import _pool
from fleet_kit.cloudevents import Envelope, Stored, open_envelope, substitute_id
from fleet_kit.errors import Refused, Unreadable

pytestmark = pytest.mark.unit
SUBJECT = "lorafleet.v1.training.requested"
STRUCTURED = {"content-type": "application/cloudevents+json"}
STORED = Stored(7, datetime(2026, 1, 31, 12, tzinfo=UTC))
WANTED = v1.TrainingRequested(domain="shop", description="größe")
EVENT = {
    "specversion": "1.0",
    "id": "42",
    "source": "https://shop.example/crm",
    "type": "lorafleet.events.v1.TrainingRequested",
    "time": "2026-01-30T12:00:00Z",
    "subject": "a-job",
    "datacontenttype": "application/json",
    "data": {"domain": "shop", "description": "größe"},
}


def opened(document: dict[str, Any], headers: dict[str, str] = STRUCTURED) -> tuple[object, Envelope]:
    return open_envelope(SUBJECT, headers, json.dumps(document).encode(), *STORED)


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**EVENT, **changes}.items() if name not in names}


def test_attributes_and_data_come_from_the_document() -> None:
    event, envelope = opened(EVENT)
    assert event == WANTED
    assert (envelope.id, envelope.source, envelope.entity) == ("42", "https://shop.example/crm", "a-job")
    assert envelope.time == datetime(2026, 1, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["application/cloudevents+json; charset=UTF-8", "Application/CloudEvents+JSON", None])
def test_the_content_type_may_have_parameters_and_may_be_missing_where_there_are_no_headers(kind: str | None) -> None:
    event, envelope = opened(EVENT, {"Content-Type": kind} if kind else {})
    assert (event, envelope.id) == (WANTED, "42")


def test_what_is_null_or_missing_follows_from_the_message_as_in_binary_mode() -> None:
    nothing = dict.fromkeys(("time", "subject", "datacontenttype", "dataschema"))
    event, envelope = opened(without("id", "source", "type", **nothing))
    assert event == WANTED
    assert (envelope.id, envelope.source, envelope.time) == (substitute_id(*STORED), "unknown", STORED.time)


def test_data_may_be_base64_of_json_and_of_binary_protobuf() -> None:
    message = message_factory.GetMessageClass(_pool().FindMessageTypeByName(WANTED.type_name))()
    json_format.Parse(WANTED.to_json(), message)
    for kind, body in (("application/json", WANTED.to_json()), ("application/protobuf", message.SerializeToString())):
        encoded = base64.b64encode(body).decode()
        event, _ = opened(without("data", datacontenttype=kind, data_base64=encoded))
        assert event == WANTED


@pytest.mark.parametrize("kind", ["text/json", "application/vnd.shop+json", "Application/Vnd.Shop+JSON; charset=utf-8"])
def test_data_of_every_type_of_json_is_read_as_json(kind: str) -> None:
    encoded = base64.b64encode(WANTED.to_json()).decode()
    for document in (without(datacontenttype=kind), without("data", datacontenttype=kind, data_base64=encoded)):
        assert opened(document)[0] == WANTED


def test_a_byte_order_mark_before_the_json_is_passed_over_in_either_mode() -> None:
    for headers, document in ((STRUCTURED, EVENT), ({}, EVENT), ({"content-type": "application/json"}, EVENT["data"])):
        body = b"\xef\xbb\xbf" + json.dumps(document).encode()
        assert open_envelope(SUBJECT, headers, body, *STORED)[0] == WANTED


def test_extensions_are_headers_and_trace_context_keeps_its_name() -> None:
    _, envelope = opened(without(traceparent="00-aa-bb-01", partition=7, sampled=True))
    assert envelope.headers["traceparent"] == "00-aa-bb-01"
    assert (envelope.headers["ce-partition"], envelope.headers["ce-sampled"]) == ("7", "true")


def test_the_document_counts_where_a_header_says_otherwise() -> None:
    assert opened(EVENT, {**STRUCTURED, "ce-id": "of the header"})[1].id == "42"


def test_an_event_of_the_fleet_whose_body_has_a_field_of_that_name_stays_in_binary_mode() -> None:
    body = b'{"domain": "shop", "specversion": "mine"}'
    for headers in ({"content-type": "application/json"}, {"ce-id": "1"}):
        assert open_envelope(SUBJECT, headers, body, *STORED)[0] == v1.TrainingRequested(domain="shop")
    assert not any({"type", "data", "data_base64"} & set(event.model_fields) for event in v1.EVENTS)
    nested = b'{"domain": "shop", "other": {"specversion": "1.0"}}'
    assert open_envelope(SUBJECT, None, nested, *STORED)[0] == v1.TrainingRequested(domain="shop")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (without("specversion"), "specversion is missing"),
        (without(specversion="0.3"), "ce-specversion is '0.3', it must be 1.0"),
        (without(type="lorafleet.events.v1.Approved"), "it must be lorafleet.events.v1.TrainingRequested|does not belong"),
        (without(id=["a"]), "'id' must be a text"),
        (without(id="a\x00b"), "NUL"),
        (without(source={"a": 1}), "'source' must be a text"),
        (without(id="i" * 257), "ce-id of 257 characters"),
        (without(time="yesterday"), "ce-time"),
        (without(data_base64="e30="), "data and data_base64 are both there"),
        (without("data", data_base64="no base64"), "data_base64 is not base64"),
        (without("data", data_base64=7), "data_base64 is not base64"),
        (without(datacontenttype="application/protobuf"), "must be in data_base64"),
        (without("data", data_base64="e30=", datacontenttype="text/plain"), "content-type 'text/plain' is not readable"),
        ({"a": 1}, "specversion is missing"),
    ],
)  # fmt: skip
def test_a_broken_document_is_refused_with_what_is_wrong(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        opened(document)
    assert not isinstance(refused.value, Unreadable)


def test_batches_other_formats_and_what_is_no_json_are_refused_by_name() -> None:
    for kind in ("application/cloudevents-batch+json", "application/cloudevents+avro"):
        with pytest.raises(Refused, match="send each event by itself, as application/cloudevents"):
            opened(EVENT, {"content-type": kind})
    for body in (b"{", b"[]", b"\xff"):
        with pytest.raises(Refused, match="structured-mode CloudEvent"):
            open_envelope(SUBJECT, STRUCTURED, body, *STORED)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/json"])
def test_a_whole_event_sent_as_plain_json_is_refused_with_the_content_type_to_send(kind: str) -> None:
    for document in (EVENT, without("id", "source", "type"), without("data", data_base64="e30=")):
        with pytest.raises(Refused, match=r"looks like a structured-mode CloudEvent.* application/cloudevents\+json"):
            opened(document, {"Content-Type": kind})
    # What has attributes as headers is in binary mode: its body is the data.
    with pytest.raises(Unreadable):
        opened(EVENT, {"Content-Type": "application/json", "ce-id": "1"})


def test_data_that_breaks_the_contract_may_be_answered_by_its_handler() -> None:
    for data in ({"domain": 5}, {}, "text", None, [1]):
        with pytest.raises(Unreadable):
            opened(without(data=data))
