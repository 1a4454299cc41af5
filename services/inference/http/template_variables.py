"""`chat_template_kwargs`: what a request may set in the model's chat template."""

import json
import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from services.inference.http.parameters import without_nulls

MOST_BYTES, DEEPEST = 4096, 4


def _bounded(given: dict[str, object]) -> dict[str, object]:
    """Raises a validation error unless it is small, and of text, numbers, booleans and objects of these alone."""
    if any(not _is_plain(value, DEEPEST - 1) for value in given.values()):
        context = {"deepest": DEEPEST}
        raise PydanticCustomError(
            "template_variables",
            "expected text, finite numbers, booleans, and objects of these, at most {deepest} deep",
            context,
        )
    if len(json.dumps(given)) > MOST_BYTES:
        raise PydanticCustomError("template_variables", "expected at most {most} bytes of JSON", {"most": MOST_BYTES})
    return given


def _is_plain(value: object, deepest: int) -> bool:
    match value:
        case str() | bool() | int():
            return True
        case float():
            return math.isfinite(value)
        case Mapping():
            return deepest > 0 and all(_is_plain(one, deepest - 1) for one in value.values())
    return False


_MEMBERS = MOST_BYTES // len('"":1,')
_SCHEMA = {
    "type": "object",
    "maxProperties": _MEMBERS,
    "additionalProperties": {
        "anyOf": [
            {"type": "string", "maxLength": MOST_BYTES},
            {"type": "number"},
            {"type": "boolean"},
            {"type": "object", "maxProperties": _MEMBERS},
        ]
    },
}
TemplateVariables = Annotated[
    dict[str, object], BeforeValidator(without_nulls), AfterValidator(_bounded), WithJsonSchema(_SCHEMA)
]
"""Name of a variable → its value."""
