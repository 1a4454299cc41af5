"""CloudEvents in NATS binary mode: what we write, and what a publisher by hand may leave out."""

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from fleet_events import v1
from fleet_events.topology import TOPOLOGY
from fleet_kit.cloudevents import Envelope, Stored, event_id, open_envelope, seal
from fleet_kit.errors import Refused, Unreadable

pytestmark = pytest.mark.unit
SUBJECT = "lorafleet.v1.training.requested"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
FIRST = Stored(1, NOON)


def test_a_sealed_event_opens_to_the_same_event_and_says_where_it_comes_from() -> None:
    event = v1.TrainingRequested(domain="shop", job_id="j1")
    sealed = seal(event, service="trainer", entity="j1", trace={"traceparent": "00-aa-bb-01"})
    opened, envelope = open_envelope(sealed.subject, sealed.headers, sealed.body, 7, NOON)
    assert opened == event
    assert (envelope.id, envelope.source, envelope.entity) == (sealed.id, "lorafleet/trainer", "j1")
    assert sealed.headers["Nats-Msg-Id"] == f"lorafleet/trainer/{sealed.id}"
    assert sealed.headers["ce-specversion"] == "1.0"
    assert envelope.headers["traceparent"] == "00-aa-bb-01"


def test_an_event_that_the_topology_forgets_after_a_week_says_so_to_jetstream() -> None:
    progressed = v1.TrainingProgressed(job_id="j", domain="d")
    assert seal(progressed, service="trainer", entity="j", trace={}).headers["Nats-TTL"] == "604800s"


def test_a_bare_body_takes_its_type_from_the_subject_and_its_id_from_where_and_when_it_was_stored() -> None:
    event, envelope = open_envelope(SUBJECT, None, b'{"domain": "shop"}', 41, NOON)
    assert isinstance(event, v1.TrainingRequested)
    assert envelope.id == "sequence-41-1769860800000000"
    _, again = open_envelope(SUBJECT, None, b'{"domain": "shop"}', 41, NOON)
    _, remade = open_envelope(SUBJECT, None, b'{"domain": "shop"}', 41, NOON + timedelta(days=1))
    assert again.id == envelope.id != remade.id


def test_header_names_are_read_in_any_case() -> None:
    _, envelope = open_envelope(SUBJECT, {"Ce-Id": "mine", "CE-Source": "shop"}, b'{"domain": "shop"}', *FIRST)
    assert (envelope.id, envelope.source) == ("mine", "shop")


def test_an_event_without_a_time_happened_when_the_stream_stored_it() -> None:
    for headers in (None, {"ce-id": "a"}, {"ce-time": ""}):
        assert open_envelope(SUBJECT, headers, b'{"domain": "shop"}', *FIRST)[1].time == NOON
    now = open_envelope(SUBJECT, None, b'{"domain": "shop"}', 0)[1].time  # of no stream
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
    own = open_envelope(SUBJECT, {"ce-time": "2026-01-30T12:00:00+00:00"}, b'{"domain": "shop"}', *FIRST)[1]
    assert own.time == NOON - timedelta(days=1)


@pytest.mark.parametrize("text", ["2026-01-31t12:00:00z", "2026-01-31T12:00:00z", "2026-01-31t13:00:00.000+01:00"])
def test_a_time_may_have_its_letters_in_lower_case(text: str) -> None:
    assert open_envelope(SUBJECT, {"ce-time": text}, b'{"domain": "shop"}', *FIRST)[1].time == NOON


def test_the_same_id_of_another_source_is_another_event_and_names_other_work() -> None:
    def opened(source: str = "") -> Envelope:
        return open_envelope(SUBJECT, {"ce-id": "1", "ce-source": source}, b'{"domain": "shop"}', *FIRST)[1]

    assert opened().name == opened("lorafleet/upstream").name == "1"
    assert opened("shop").name == opened("shop").name
    assert re.fullmatch("1-[0-9a-f]{12}", opened("shop").name)
    assert len({opened().name, opened("shop").name, opened("crm").name}) == 3


@pytest.mark.parametrize(
    ("subject", "headers", "body", "reason"),
    [
        ("lorafleet.v1.training.unheard", {}, b"{}", "is in no row"),
        (SUBJECT, {"ce-type": "lorafleet.events.v1.Approved"}, b"{}", "does not belong on"),
        (SUBJECT, {"ce-time": "yesterday"}, b'{"domain": "d"}', "Invalid isoformat"),
        (SUBJECT, {"ce-time": "2026-01-01T00:00:00"}, b'{"domain": "d"}', "time zone"),
        (SUBJECT, {"ce-time": "0001-01-01T00:00:00+23:59"}, b'{"domain": "d"}', "ce-time: .*out of range"),
        (SUBJECT, {"ce-time": "2" * 65}, b'{"domain": "d"}', "ce-time of 65 characters is over the 64"),
        (SUBJECT, {"ce-id": "i" * 257}, b'{"domain": "d"}', "ce-id of 257 characters is over the 256"),
        (SUBJECT, {"ce-id": "a\x00b"}, b'{"domain": "d"}', "ce-id .* must hold printable characters only"),
        (SUBJECT, {"ce-id": "größe"}, b'{"domain": "d"}', "an id ASCII only"),
        (SUBJECT, {"Nats-Msg-Id": "i" * 514}, b'{"domain": "d"}', "nats-msg-id of 514"),
        (SUBJECT, {"ce-subject": "a\nb"}, b'{"domain": "d"}', "ce-subject .* printable"),
        (SUBJECT, {"ce-source": "\ud800"}, b'{"domain": "d"}', "ce-source .* printable"),
        (SUBJECT, {f"x-{n}": "" for n in range(65)}, b'{"domain": "d"}', "65 headers of .* are over the 64"),
        (SUBJECT, {"x": "v" * 16_384}, b'{"domain": "d"}', "1 headers of 16385 bytes"),
        (SUBJECT, {}, b'{"domain": "a\\u0000"}', "domain: character 1 is NUL"),
        (SUBJECT, {}, b'{"domain": "d", "other": ' + b"9" * 4000 + b"}", "other: integer outside"),
        (SUBJECT, {}, b'{"domain": "d", "other": ' + b"[" * 9000 + b"]" * 9000 + b"}", "recursion limit"),
        (SUBJECT, {}, b'{"domain": "NO"}', "domain: String should match pattern"),
        (SUBJECT, {}, b'{"domain": "d", "exports": [' + b'"x",' * 60_000 + b'"x"]}', "60001 faults"),
        (
            SUBJECT,
            {"content-type": "application/protobuf"},
            b"\x92\x01\x00" * 20_000,
            "more than 10000 values",
        ),
    ],
)
def test_a_message_outside_the_contract_is_refused_with_the_reason(subject, headers, body, reason) -> None:
    with pytest.raises(Refused, match=reason):
        open_envelope(subject, headers, body, *FIRST)


def test_only_a_body_that_is_json_may_be_answered_by_its_handler() -> None:
    for body in (b"{not json", b'{"domain": "a\\u0000"}', b'{"domain": "\xff"}', b'{"domain": "d", "x": ' + b"[" * 999):
        with pytest.raises(Refused) as refused:
            open_envelope(SUBJECT, {}, body, *FIRST)
        assert not isinstance(refused.value, Unreadable)
    with pytest.raises(Unreadable):
        open_envelope(SUBJECT, {}, b'{"domain": 5}', *FIRST)


def test_an_escaped_backslash_before_u0000_and_long_digits_in_text_are_no_faults() -> None:
    body = b'{"domain": "d", "description": "\\\\u0000 and 12345678901234567890"}'
    event, _ = open_envelope(SUBJECT, {}, body, *FIRST)
    assert isinstance(event, v1.TrainingRequested)
    assert event.description == "\\u0000 and 12345678901234567890"


def test_ids_are_version_seven_uuids_that_grow_with_time() -> None:
    first, second = event_id(), event_id()
    assert uuid.UUID(first).version == 7
    assert uuid.UUID(first).variant == uuid.RFC_4122
    assert first[:13] <= second[:13]
    assert first != second


APPROVED = "lorafleet.v1.adapter.approved"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ce-type": None}, "ce-type is missing"),
        ({"ce-specversion": None}, "ce-specversion is missing"),
        ({"ce-source": None}, "ce-source is missing"),
        ({"ce-source": "lorafleet/upstream"}, "must be lorafleet/registry"),
        ({"ce-source": "lorafleet/trainer"}, "must be lorafleet/registry"),
        ({"ce-specversion": "0.3"}, "must be 1.0"),
    ],
)
def test_a_fact_of_a_service_without_that_services_attributes_is_no_event(changes, reason) -> None:
    event = v1.Approved(adapter_id="a", family="f", domain="d", artifact_sha256="0" * 64, by="anna", revision=1)
    headers = seal(event, service="registry", entity="a", trace={}).headers
    changed = {name: value for name, value in {**headers, **changes}.items() if value is not None}
    with pytest.raises(Refused, match=reason):
        open_envelope(APPROVED, changed, b"{}", *FIRST)


@pytest.mark.parametrize("row", TOPOLOGY, ids=lambda row: row.event.__name__)
def test_an_acknowledgement_that_came_to_lie_on_a_subject_is_no_event_there(row) -> None:
    with pytest.raises(Refused):
        open_envelope(row.subject, None, b'{"stream": "LORAFLEET", "seq": 7}', *FIRST)
