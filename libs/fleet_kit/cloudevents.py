"""CloudEvents 1.0 in NATS binary mode: attributes are headers with ce- before them, the body is the event.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fleet_events.message import Event, decode_event
from fleet_events.topology import MAX_EVENT_BYTES, row_of, row_of_subject
from fleet_kit.errors import Refused, Unreadable
from fleet_kit.origin import check_origin

__all__ = ["Envelope", "Outgoing", "event_id", "open_envelope", "read_envelope", "seal"]


@dataclass(frozen=True)
class Envelope:
    """What a received event says about itself."""

    id: str
    type: str
    source: str
    time: datetime
    entity: str
    """ce-subject: the thing that the event is about."""
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Outgoing:
    """An event ready for the wire."""

    id: str
    subject: str
    entity: str
    headers: dict[str, str]
    body: bytes


def event_id() -> str:
    """A time-ordered id (UUID version 7, RFC 9562)."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF000 << 64) | (0x7000 << 64)
    value = value & ~(0xC000 << 48) | (0x8000 << 48)
    return str(uuid.UUID(int=value))


def seal(event: Event, *, service: str, entity: str, trace: Mapping[str, str], id: str | None = None) -> Outgoing:
    """Headers and body of an event; raises ValueError when the body is too large for the bus."""
    row = row_of(type(event))
    body = event.to_json()
    if len(body) > MAX_EVENT_BYTES:
        raise ValueError(
            f"{type(event).__name__} of {len(body)} bytes is over the {MAX_EVENT_BYTES} that an event may have: "
            "put the content in the object store and send its reference"
        )
    name = id or event_id()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": name,
        "ce-type": event.type_name,
        "ce-source": f"lorafleet/{service}",
        "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "ce-subject": entity,
        "content-type": "application/json",
        "Nats-Msg-Id": name,
        **trace,
    }
    if row.keep is not None:
        headers["Nats-TTL"] = f"{int(row.keep.total_seconds())}s"
    return Outgoing(name, row.subject, entity, headers, body)


def open_envelope(
    subject: str, headers: Mapping[str, str] | None, body: bytes, sequence: int
) -> tuple[Event, Envelope]:
    """Read a received message.

    Raises:
        Refused: see `read_envelope`.
        Unreadable: the body is none of this event; the reason names each field at fault.
    """
    envelope = read_envelope(subject, headers, body, sequence)
    try:
        return decode_event(envelope.type, envelope.headers.get("content-type", ""), body), envelope
    except ValueError as error:
        raise Unreadable(_reason(error)) from error


def read_envelope(subject: str, headers: Mapping[str, str] | None, body: bytes, sequence: int) -> Envelope:
    """What a received message says about itself.

    An upstream publisher may leave headers out: the type then follows from the subject and the id from the
    stream's sequence, which stays the same over redeliveries. A fact that only services publish must carry them.

    Raises:
        Refused: too large, unknown, with a broken time, or no event of the subject from a source that may publish it.
    """
    found = {name.lower(): value for name, value in (headers or {}).items()}
    row = row_of_subject(subject)
    if row is None:
        raise Refused(f"subject {subject!r} is in no row of the topology")
    if len(body) > MAX_EVENT_BYTES:
        raise Refused(f"body of {len(body)} bytes is over the {MAX_EVENT_BYTES} that an event may have")
    type_name = found.get("ce-type", row.event.type_name)
    if type_name != row.event.type_name:
        raise Refused(f"ce-type {type_name!r} does not belong on {subject}, which carries {row.event.type_name}")
    check_origin(row, found)
    try:
        moment = datetime.fromisoformat(found.get("ce-time", "1970-01-01T00:00:00Z"))
        if moment.tzinfo is None:
            raise ValueError("ce-time must carry a time zone")
    except ValueError as error:
        raise Refused(_reason(error)) from error
    return Envelope(
        id=found.get("ce-id") or found.get("nats-msg-id") or f"sequence-{sequence}",
        type=type_name,
        source=found.get("ce-source", "unknown"),
        time=moment,
        entity=found.get("ce-subject", ""),
        headers=found,
    )


def _reason(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    faults = [
        f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']} (got {str(fault['input'])[:80]!r})"
        for fault in error.errors(include_url=False)
    ]
    return f"{error.title}: " + "; ".join(faults)
