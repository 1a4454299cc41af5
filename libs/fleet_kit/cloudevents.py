"""CloudEvents 1.0 in NATS binary mode: attributes are headers with ce- before them, the body is the event.

What upstream sends in structured mode is read too, see `structured`.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

import hashlib
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from reprlib import Repr
from typing import NamedTuple

from nats.aio.msg import Msg
from pydantic import ValidationError

from fleet_events.decode import decode_event
from fleet_events.message import Event
from fleet_events.topology import MAX_EVENT_BYTES, SERVICES, UPSTREAM, row_of, row_of_subject
from fleet_kit.errors import Refused, Unreadable
from fleet_kit.origin import check_origin
from fleet_kit.structured import as_binary

__all__ = [
    "ONLY_FOR",
    "Envelope",
    "Outgoing",
    "Stored",
    "event_id",
    "open_envelope",
    "read_envelope",
    "read_event",
    "seal",
    "substitute_id",
]

ONLY_FOR = "Lorafleet-Only-For"
"""Header of a replayed dead letter: the durable that gave the event up. Others pass it by."""
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 * 1024
"""Names and values of all headers together."""
MAX_ATTRIBUTE = {"ce-id": 256, "nats-msg-id": 513, "ce-source": 256, "ce-type": 256, "ce-subject": 1024, "ce-time": 64}
"""Characters of an attribute. A Nats-Msg-Id has room for source and id."""
UNNAMED = "unknown"
"""Source of an event that names none."""
_OWN_SOURCES = frozenset({UNNAMED, *(f"lorafleet/{name}" for name in (*SERVICES, UPSTREAM))})
_MAX_FAULTS = 50
_MAX_SHOWN = 16 * 1024
"""Faults of one body that are described, and size of a body whose values are shown with them: describing 60,000 faults
takes a second, and showing a list of 80,000 values a tenth of one."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class Stored(NamedTuple):
    """Where and when the stream stored a message: the same over redeliveries, another one in a recreated stream."""

    sequence: int
    time: datetime

    @classmethod
    def of(cls, message: Msg) -> "Stored":
        """Of a delivery from JetStream."""
        return cls(message.metadata.sequence.stream, message.metadata.timestamp)


@dataclass(frozen=True)
class Envelope:
    """The attributes of a received event. `source` and `id` together are its identity, as CloudEvents defines."""

    id: str
    type: str
    source: str
    time: datetime
    """When it happened, by its own word; without one when the stream stored it."""
    entity: str
    """ce-subject: the thing that the event is about."""
    headers: Mapping[str, str]
    sequence: int = 0
    """Of its message in the stream that it came from, by which that can be deleted; 0 where it came from none."""

    @property
    def name(self) -> str:
        """The identity as one word, for what is made of the event: the id, with a print of any source but our own."""
        if self.source in _OWN_SOURCES:
            return self.id
        return f"{self.id}-{hashlib.sha256(self.source.encode()).hexdigest()[:12]}"


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
    name, source = id or event_id(), f"lorafleet/{service}"
    headers = {
        "ce-specversion": "1.0",
        "ce-id": name,
        "ce-type": event.type_name,
        "ce-source": source,
        "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "ce-subject": entity,
        "content-type": "application/json",
        "Nats-Msg-Id": f"{source}/{name}",
        **trace,
    }
    if row.keep is not None:
        headers["Nats-TTL"] = f"{int(row.keep.total_seconds())}s"
    return Outgoing(name, row.subject, entity, headers, body)


def open_envelope(
    subject: str, headers: Mapping[str, str] | None, body: bytes, sequence: int, at: datetime | None = None
) -> tuple[Event, Envelope]:
    """Read a received message; arguments and errors as of `read_envelope` and `read_event`."""
    envelope, data = read_envelope(subject, headers, body, sequence, at)
    return read_event(envelope, data), envelope


def read_event(envelope: Envelope, data: bytes) -> Event:
    """The event of an envelope and its data.

    Raises:
        Refused: the data is no JSON that the fleet can hold, or no such protobuf message.
        Unreadable: it breaks the event's contract; the reason names each field at fault.
    """
    try:
        return decode_event(envelope.type, envelope.headers.get("content-type", ""), data)
    except ValidationError as error:
        reason = _reason(error, len(data))
        if _is_syntax(error):
            raise Refused(reason) from error
        raise Unreadable(reason) from error
    except ValueError as error:
        raise Refused(str(error)[:2000]) from error


def _is_syntax(error: ValidationError) -> bool:
    """Whether the body is no JSON at all, so that no handler can find out whose it is."""
    if error.error_count() > 1:
        return False
    [fault] = error.errors(include_url=False, include_input=False, include_context=False)
    return fault["type"] == "json_invalid"


def read_envelope(
    subject: str, headers: Mapping[str, str] | None, body: bytes, sequence: int, at: datetime | None = None
) -> tuple[Envelope, bytes]:
    """The envelope of a received message, and its data.

    An upstream publisher may leave attributes out: the type then follows from the subject, id and time from where and
    when the stream stored it. A fact that only services publish must carry them.

    Args:
        subject: the message's.
        headers: the message's, names in any case.
        body: the message's.
        sequence: of the message in its stream.
        at: when the stream stored it; None for a message that no stream has, which happens now.

    Raises:
        Refused: too large, unknown, with a broken attribute, or no event of the subject from a source that may publish
            it.
    """
    found = {name.lower(): value for name, value in (headers or {}).items()}
    _check_headers(found)
    row = row_of_subject(subject)
    if row is None:
        raise Refused(f"subject {subject!r} is in no row of the topology")
    if len(body) > MAX_EVENT_BYTES:
        raise Refused(f"body of {len(body)} bytes is over the {MAX_EVENT_BYTES} that an event may have")
    found, data = as_binary(found, body)
    if data is not body:  # the attributes come from the document
        _check_headers(found)
    type_name = found.get("ce-type", row.event.type_name)
    if type_name != row.event.type_name:
        raise Refused(f"ce-type {type_name!r} does not belong on {subject}, which carries {row.event.type_name}")
    check_origin(row, found)
    envelope = Envelope(
        id=found.get("ce-id") or found.get("nats-msg-id") or substitute_id(sequence, at),
        type=type_name,
        source=found.get("ce-source") or UNNAMED,
        time=_moment(found["ce-time"]) if found.get("ce-time") else at or datetime.now(UTC),
        entity=found.get("ce-subject", ""),
        headers=found,
        sequence=sequence,
    )
    return envelope, data


def substitute_id(sequence: int, at: datetime | None) -> str:
    """The id of an event whose publisher gave it none: a recreated stream counts from 1 again, at other times."""
    return f"sequence-{sequence}" + (f"-{int(at.timestamp() * 1_000_000)}" if at else "")


def _moment(text: str) -> datetime:
    try:
        # RFC 3339, section 5.6: T and Z may be in lower case.
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            raise ValueError("ce-time must carry a time zone")
        moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Refused(f"ce-time: {error}") from error
    return moment


def _check_headers(headers: Mapping[str, str]) -> None:
    size = sum(len(name) + len(value) for name, value in headers.items())
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise Refused(
            f"{len(headers)} headers of {size} bytes are over the {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes "
            "that an event may have"
        )
    for name, most in MAX_ATTRIBUTE.items():
        value = headers.get(name)
        if value is None:
            continue
        if len(value) > most:
            raise Refused(f"{name} of {len(value)} characters is over the {most} that it may have")
        # An id is compared byte by byte where it is stored, so it has one spelling.
        if not value.isprintable() or (name in {"ce-id", "nats-msg-id", "ce-type"} and not value.isascii()):
            raise Refused(f"{name} {value[:80]!r} must hold printable characters only, and an id ASCII only")


def _reason(error: ValidationError, size: int) -> str:
    if error.error_count() > _MAX_FAULTS:
        return f"{error.title}: {error.error_count()} faults; send bodies by the contract in proto-schemas/"
    shown = size <= _MAX_SHOWN
    return f"{error.title}: " + "; ".join(
        f"{'.'.join(map(str, fault['loc']))[:200] or 'body'}: {fault['msg'][:300]}"
        + (f" (got {_SHORT.repr(fault['input'])})" if shown else "")
        for fault in error.errors(include_url=False, include_input=shown)
    )
