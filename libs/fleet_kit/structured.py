"""CloudEvents in structured mode: one JSON document holds the attributes and the data. It is read as binary mode.

https://github.com/cloudevents/spec/blob/main/cloudevents/formats/json-format.md
"""

import base64
import binascii
import json
from collections.abc import Mapping

from pydantic import JsonValue

from fleet_events.strict_json import read_json
from fleet_kit.errors import Refused

__all__ = ["as_binary"]

CONTENT_TYPE = "application/cloudevents+json"
_JSON = "application/json"
_TRACE = frozenset({"traceparent", "tracestate"})
_ENVELOPE = frozenset({"type", "data", "data_base64"})
"""No event of the fleet has fields of these names."""


def as_binary(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body in binary mode; those of a message in binary mode as they are.

    Args:
        headers: names in lower case.
        body: the message's.

    Raises:
        Refused: its content type is that of structured mode, and it is no event in the JSON format; or it is one, and
            claims to be the event's data alone.
    """
    kind = _media_type(headers.get("content-type", ""))
    if kind.startswith("application/cloudevents") and kind != CONTENT_TYPE:
        raise Refused(f"content-type {kind[:80]!r} is not readable: send each event by itself, as {CONTENT_TYPE}")
    # NATS had no headers when its binding was made, and some clients still send none: the document decides then.
    self_described = b'"specversion"' in body and not any(name.startswith("ce-") for name in headers)
    bare = self_described and not kind
    if kind != CONTENT_TYPE and not bare:
        if self_described and _is_json(kind):
            _refuse_a_whole_event(kind, body)
        return dict(headers), body
    try:
        document = read_json(body)
    except ValueError as error:
        raise Refused(f"structured-mode CloudEvent: {error}") from error
    if not isinstance(document, dict) or "specversion" not in document:
        if bare:
            return dict(headers), body
        raise Refused("structured-mode CloudEvent: specversion is missing, it must be 1.0")
    attributes = {name: _text(name, value) for name, value in document.items() if value is not None}
    data = _data(document, attributes.pop("datacontenttype", _JSON))
    kept = {name: value for name, value in headers.items() if not name.startswith("ce-")}
    kept |= {name if name in _TRACE else f"ce-{name}": value for name, value in attributes.items() if value != ""}
    return kept | {"content-type": data[0]}, data[1]


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    """Whether data of this type is a JSON value, by section 3.1 of the JSON format: */json and */*+json."""
    _, slash, subtype = media_type.partition("/")
    return bool(slash) and (subtype == "json" or subtype.endswith("+json"))


def _refuse_a_whole_event(kind: str, body: bytes) -> None:
    """Its data would be passed over, for a contract ignores the fields that it does not know."""
    try:
        document = read_json(body)
    except ValueError:
        return
    if isinstance(document, dict) and "specversion" in document and not document.keys().isdisjoint(_ENVELOPE):
        raise Refused(
            f"the body looks like a structured-mode CloudEvent, but its content-type is {kind[:80]!r}: send it as "
            f"{CONTENT_TYPE}, or its data alone with the attributes as ce- headers"
        )


def _text(name: str, value: JsonValue) -> str:
    """An attribute as its header; data is none."""
    if name in {"data", "data_base64"}:
        return ""
    match value:
        case bool():
            return str(value).lower()
        case str() | int():
            return str(value)
    raise Refused(f"structured-mode CloudEvent: {name[:80]!r} must be a text, an integer, true or false")


def _data(document: Mapping[str, JsonValue], content_type: str) -> tuple[str, bytes]:
    """Content type and bytes of the data; every type of JSON is given as the one that events are read by."""
    is_json = _is_json(_media_type(content_type))
    if is_json and _media_type(content_type) != _JSON:
        content_type = _JSON
    data, encoded = document.get("data"), document.get("data_base64")
    if data is not None and encoded is not None:
        raise Refused("structured-mode CloudEvent: data and data_base64 are both there, send one")
    if encoded is not None:
        try:
            return content_type, base64.b64decode(encoded if isinstance(encoded, str) else "!", validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(f"structured-mode CloudEvent: data_base64 is not base64 (RFC 4648): {error}") from error
    if not is_json:
        raise Refused(f"structured-mode CloudEvent: data of {content_type[:80]!r} must be in data_base64")
    return content_type, json.dumps({} if data is None else data, ensure_ascii=False).encode()
