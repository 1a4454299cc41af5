"""From the body of a message to the event in it."""

from fleet_events import v1
from fleet_events.message import Event

__all__ = ["decode_event"]

_BY_TYPE_NAME = {event.type_name: event for event in v1.EVENTS}


def decode_event(type_name: str, content_type: str, body: bytes) -> Event:
    """The event in a body.

    Raises:
        ValueError: unknown type, unknown content type, or a body that breaks the contract
            (`pydantic.ValidationError` is a `ValueError`).
    """
    event = _BY_TYPE_NAME.get(type_name)
    if event is None:
        raise ValueError(f"ce-type {type_name!r} is no event of this fleet; see proto-schemas/")
    match content_type.partition(";")[0].strip().lower():
        case "" | "application/json":
            return event.from_json(body)
        case "application/protobuf":
            return event.from_protobuf(body)
        case other:
            raise ValueError(f"content-type {other!r} is not readable: send application/json or application/protobuf")
