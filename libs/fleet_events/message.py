"""Base classes of the generated events: immutable, validated, written as ProtoJSON."""

import importlib
import re
from functools import cache
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from fleet_events.protojson import set_fields
from fleet_events.strict_json import BYTE_ORDER_MARK, read_json

__all__ = ["Event", "Message"]


_DIGITS = bytes.maketrans(b"0123456789", b"0" * 10)
_LONG_INTEGER = re.compile(rb"[:\[,]\s*-?\d{19}")
"""Where a value begins. Digests in strings have as many digits now and then."""


def _suspicious(body: bytes) -> bool:
    """Whether a body may hold what the model's own reader lets pass and `read_json` refuses.

    That is NUL characters and integers beyond 64 bits. The searches cost a fraction of reading the body twice.
    """
    if b"\\u0000" in body:
        return True
    return b"0" * 19 in body.translate(_DIGITS) and _LONG_INTEGER.search(body) is not None


class Message(BaseModel):
    """A value inside an event.

    Fields have snake_case names here and lowerCamel names on the wire; both are read, and null is read as unset.
    Unknown fields are ignored, so that a newer writer can speak to an older reader; a wrong type or a broken rule
    raises `pydantic.ValidationError`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _as_protojson(cls, values: object) -> object:
        return set_fields(values, _wire_names(cls)) if isinstance(values, dict) else values


@cache
def _wire_names(message: type[Message]) -> dict[str, str]:
    return {name: wire for name in message.model_fields if (wire := to_camel(name)) != name}


class Event(Message):
    """A fact that travels on the bus."""

    type_name: ClassVar[str] = ""
    """Full protobuf name, for example lorafleet.events.v1.Approved; the CloudEvents type."""

    def to_json(self) -> bytes:
        """ProtoJSON body; fields at their default are left out."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True).encode()

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Read a ProtoJSON body.

        Raises:
            ValueError: it breaks the contract (`pydantic.ValidationError`, which names each field at fault), or it is
                JSON that not every part of the fleet can hold (see `read_json`).
        """
        data = (body.encode() if isinstance(body, str) else body).removeprefix(BYTE_ORDER_MARK)
        if _suspicious(data):
            read_json(data)
        return cls.model_validate_json(data)

    @classmethod
    def from_protobuf(cls, body: bytes) -> Self:
        """Read a binary protobuf body; raises `ValueError` if it is not this message."""
        from fleet_events.protobuf import to_protojson

        return cls.from_json(to_protojson(cls.type_name, body))


def __getattr__(name: str) -> object:
    """`decode_event` was here."""
    if name == "decode_event":
        return getattr(importlib.import_module("fleet_events.decode"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
