"""Values as ProtoJSON writes them (https://protobuf.dev/programming-guides/json/), for the fields of events.

Numbers are read quoted and unquoted, also as 1e2 and 4.0 where an integer is wanted; `true` is none. The contract
allows no NaN and no infinities, though ProtoJSON has names for them. What a field cannot take is refused with its name.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field, PlainSerializer, StrictBool
from pydantic_core import PydanticCustomError

__all__ = ["INTEGER", "NUMBER", "QUOTED", "Bool", "Double", "Int32", "Int64", "Timestamp", "set_fields"]

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER = 400
"""Characters. Longer ones are digits that a double cannot tell apart."""
_DIGITS_OF_AN_INTEGER = 20


def set_fields(values: Mapping[str, object], wire_names: Mapping[str, str]) -> dict[str, object]:
    """What is set in a message's JSON object: null stands for a field that is not set.

    Args:
        values: the object; unknown names stay in it.
        wire_names: name in the .proto file → its lowerCamel name, where the two differ.

    Raises:
        ValueError: a field is there in both spellings.
    """
    found = {name: value for name, value in values.items() if value is not None}
    for name in found:
        other = wire_names.get(name)
        if other is not None and other in found:
            raise PydanticCustomError(
                "field_twice", "{other} is there twice, as {name} too", {"other": other, "name": name}
            )
    return found


def _integer(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be an integer, not true or false")
    if not isinstance(value, str):
        return value
    if len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value):
        number = Decimal(value)
        if number.adjusted() < _DIGITS_OF_AN_INTEGER and number == number.to_integral_value():
            return int(number)
    raise PydanticCustomError("int_parsing", "Input should be an integer, or one in quotes")


def _double(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "Input should be a number, not true or false")
    if not isinstance(value, str):
        return value
    if len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value):
        return float(value)  # one beyond a double becomes infinite, which the contract refuses
    raise PydanticCustomError("float_parsing", "Input should be a finite number, or one in quotes")


def _moment(value: object) -> object:
    if isinstance(value, (str, datetime)):
        return value
    raise PydanticCustomError("datetime_type", "Input should be an RFC 3339 time, for example 2026-01-31T12:00:00Z")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


INTEGER = BeforeValidator(_integer)
NUMBER = BeforeValidator(_double)
# ProtoJSON writes 64-bit integers as strings, since JavaScript cannot hold them as numbers; both are read.
QUOTED = PlainSerializer(str, return_type=str, when_used="json")

# Bounds come before the reader of a type: only so are they in its JSON Schema.
Bool = StrictBool
Double = Annotated[float, NUMBER]
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1), INTEGER]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), INTEGER, QUOTED]
Timestamp = Annotated[
    AwareDatetime, BeforeValidator(_moment), PlainSerializer(_rfc3339, return_type=str, when_used="json")
]
