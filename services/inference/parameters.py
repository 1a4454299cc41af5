"""What a parameter of the /v1 API may be here: read, taken only where it asks for nothing, or refused by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Standing = Literal["accepted", "neutral only", "refused"]

Word = Annotated[str, Field(max_length=512)]
"""A value that is taken and changes nothing."""
Small = Annotated[
    dict[Annotated[str, Field(max_length=64)], Word | bool | Annotated[int, Field(ge=0, lt=2**31)]],
    Field(max_length=16),
]
"""Settings of another server's caches: taken, and change nothing."""


@dataclass(frozen=True)
class Neutral:
    """For `Annotated`: a parameter that this server cannot act on. Null and `values` ask for nothing and are taken.

    instead: what the refusal of every other value tells to do.
    """

    values: Sequence[object]
    instead: str

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._neutral)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": [*self.values, None]}

    def _neutral(self, value: object) -> object:
        if without_nulls(value) in self.values:
            return value
        raise PydanticCustomError("not_supported", "not supported here; {instead}", {"instead": self.instead})


_NULL = {"type": "null"}


def _optional_may_be_null(schema: dict[str, Any]) -> None:
    for name, field in schema.get("properties", {}).items():
        may_be = field.get("anyOf", ())
        if name not in schema.get("required", ()) and None not in field.get("enum", ()) and _NULL not in may_be:
            schema["properties"][name] = {"anyOf": [field, _NULL]}


class Body(BaseModel):
    """A request body, or an object in one. Null is "not set", as clients send it; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_optional_may_be_null)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, given: object) -> object:
        return without_nulls(given)


def without_nulls(given: object) -> object:
    """An object without its null members; anything else as it is."""
    if not isinstance(given, Mapping):
        return given
    return {name: value for name, value in given.items() if value is not None}


def standings(body: type[Body]) -> Iterator[tuple[str, Standing]]:
    """Each parameter of a body, and what becomes of it."""
    for name, field in body.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Neutral)]
        yield name, "accepted" if not marks else "neutral only" if marks[0].values else "refused"


EXPECTED: dict[str, Any] = {
    "custom_error_type": "prompts",
    "custom_error_message": "expected a text, a list of texts, a list of token ids, or a list of lists of token ids",
}
"""What a discriminated union by `shape_of` says of anything else."""


def shape_of(value: object) -> str | None:
    """Tells a text, a list of texts, a list of token ids and a list of such lists apart."""
    match value:
        case str():
            return "text"
        case [str(), *_]:
            return "texts"
        case [int(), *_]:
            return "ids"
        case [[*_], *_]:
            return "lists"
    return None


def several(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """A list of what was given, which may be one text or the token ids of one."""
    match shape_of(given):
        case "text" | "ids":
            return [cast("str | list[int]", given)]
    return list(cast("list[str] | list[list[int]]", given))
