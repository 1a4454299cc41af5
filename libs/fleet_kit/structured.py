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
_TRACE = frozenset({"traceparent", "tracestate"})


def as_binary(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body in binary mode; those of a message in binary mode as they are.

    Args:
        headers: names in lower case.
        body: the message's.

    Raises:
        Refused: it says to be in structured mode, and is no event in the JSON format.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("application/cloudevents") and kind != CONTENT_TYPE:
        raise Refused(f"content-type {kind[:80]!r} is not readable: send each event by itself, as {CONTENT_TYPE}")
    # NATS had no headers when its binding was made, and some clients still send none: the document tells then.
    bare = not kind and b'"specversion"' in body and not any(name.startswith("ce-") for name in headers)
    if kind != CONTENT_TYPE and not bare:
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
    data = _data(document, attributes.pop("datacontenttype", "application/json"))
    kept = {name: value for name, value in headers.items() if not name.startswith("ce-")}
    kept |= {name if name in _TRACE else f"ce-{name}": value for name, value in attributes.items() if value != ""}
    return kept | {"content-type": data[0]}, data[1]


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
    """Content type and bytes of the data."""
    data, encoded = document.get("data"), document.get("data_base64")
    if data is not None and encoded is not None:
        raise Refused("structured-mode CloudEvent: data and data_base64 are both there, send one")
    if encoded is not None:
        try:
            return content_type, base64.b64decode(encoded if isinstance(encoded, str) else "!", validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(f"structured-mode CloudEvent: data_base64 is not base64 (RFC 4648): {error}") from error
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused(f"structured-mode CloudEvent: data of {content_type[:80]!r} must be in data_base64")
    return content_type, json.dumps({} if data is None else data, ensure_ascii=False).encode()
