"""What a parameter of the /v1 API may be here: read, taken only where it changes nothing, or refused by name."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

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

    instead: what the refusal of every other value recommends.
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


_MAX_REPORTED = 10
"""Unknown parameters of one object that an error names."""
_MAX_NAME = 64
"""Characters of an unknown name that are shown, and up to which the nearest one is looked for."""
_ELSEWHERE = dict.fromkeys(
    ("max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_gen_toks", "num_predict"), "max_tokens"
) | {"stop_sequences": "stop", "until": "stop", "random_seed": "seed", "num_return_sequences": "n"}
"""What other routes and servers call a parameter → its name here."""
_THINKING = frozenset({"enable_thinking", "thinking", "thinking_budget"})

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
        stated = without_nulls(given)
        if isinstance(stated, Mapping) and (unknown := [name for name in stated if name not in _names(cls)]):
            # pydantic merges the faults that a validator raises into its own, at the place of this object.
            raise ValidationError.from_exception_data(
                cls.__name__, [cls._unknown(name) for name in unknown[:_MAX_REPORTED]]
            )
        return stated

    @classmethod
    def _unknown(cls, name: str) -> InitErrorDetails:
        instead = cls._instead_of(name)
        fault = PydanticCustomError("unknown_parameter", "not a known parameter here{instead}", {"instead": instead})
        return InitErrorDetails(type=fault, loc=(name[:_MAX_NAME],), input=None)

    @classmethod
    def _instead_of(cls, name: str) -> str:
        if name in _THINKING and "messages" in cls.model_fields:
            return "; conversations are rendered by the model's own chat template: set it in chat_template_kwargs"
        known = [one for one, standing in standings(cls) if standing == "accepted"]
        if (same := _ELSEWHERE.get(name)) in known:
            return f"; it is {same}"
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.75) if len(name) <= _MAX_NAME else []
        return f"; the nearest is {nearest[0]}" if nearest else ""


def without_nulls(given: object) -> object:
    """An object without its null members; anything else as it is."""
    if not isinstance(given, Mapping):
        return given
    return {name: value for name, value in given.items() if value is not None}


def _names(body: type[Body]) -> frozenset[str]:
    """What its parameters are called in JSON."""
    return frozenset(field.alias or name for name, field in body.model_fields.items())


def standings(body: type[Body]) -> Iterator[tuple[str, Standing]]:
    """Each parameter of a body, and what becomes of it."""
    for name, field in body.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Neutral)]
        yield field.alias or name, "accepted" if not marks else "neutral only" if marks[0].values else "refused"


EXPECTED: dict[str, Any] = {
    "custom_error_type": "prompts",
    "custom_error_message": "expected a text, a list of texts, a list of token ids, or a list of lists of token ids",
}
"""The fault of a discriminated union by `shape_of` for anything else."""


def shape_of(value: object) -> str | None:
    """Whether it is a text, a list of texts, a list of token ids or a list of such lists."""
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
