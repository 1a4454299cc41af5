"""The rule that an answer is JSON of a schema. Its work is bounded: schema nodes × values of the answer.

Source: JSON Schema 2020-12, without what has no such bound or is not checked here (`REFUSED`). Expressions in
`pattern` are those of linear_regex.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import linear_regex
from fleet_events.strict_json import read_json
from linear_regex import UnsuitablePattern

MAX_SCHEMA = 8_000  # characters
MAX_NODES = 200  # of a schema
MAX_JSON = 16_000  # characters of an answer; a longer one does not hold
STEPS_OF_A_NODE = 50  # comparisons that one schema node costs at one value
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("$ref", "$dynamicRef", "$recursiveRef"), "references; write the schema in its place"),
    **dict.fromkeys(
        ("unevaluatedProperties", "unevaluatedItems", "patternProperties"), "it; write additionalProperties"
    ),
    "uniqueItems": "it; its work grows with the square of the answer",
    "format": "it, which nothing checks; write a pattern",
}
"""Keyword → what a rule does not take, and what would be right."""


class UnsuitableSchema(ValueError):
    """A schema that no rule can have; the message gives what would be right."""


class Validator(Protocol):
    """Checks one JSON value (jsonschema's own type is untyped here)."""

    def is_valid(self, instance: object) -> bool: ...


@dataclass(frozen=True)
class JsonSchema:
    """The answer as a whole is JSON that fits the schema."""

    text: str
    validator: Validator = field(compare=False)
    nodes: int

    @property
    def steps(self) -> int:
        """Of one character of an answer, see `criteria.steps`."""
        return STEPS_OF_A_NODE * self.nodes

    def holds(self, answer: str) -> bool:
        if len(answer) > MAX_JSON:
            return False
        try:
            return self.validator.is_valid(read_json(answer.strip()))
        except (ValueError, RecursionError, OverflowError):
            return False


def compile_schema(text: str) -> tuple[Validator, int]:
    """The validator of a schema, and its number of nodes. Raises UnsuitableSchema."""
    # Here, since most evaluations do without.
    import jsonschema

    if len(text) > MAX_SCHEMA:
        raise UnsuitableSchema(f"the schema has {len(text)} characters; at most {MAX_SCHEMA}")
    try:
        schema = read_json(text)
        nodes = list(_nodes(schema))
    except (ValueError, RecursionError) as error:
        raise UnsuitableSchema(f"is no JSON: {str(error)[:200]}") from None
    if not isinstance(schema, dict):
        raise UnsuitableSchema('a schema is an object, for example {"type": "object", "required": ["name"]}')
    if len(nodes) > MAX_NODES:
        raise UnsuitableSchema(f"the schema has {len(nodes)} objects and lists; at most {MAX_NODES}")
    patterns = {text: compiled for node in nodes for text, compiled in _patterns(node)}
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        place = ".".join(map(str, error.absolute_path)) or "the schema"
        raise UnsuitableSchema(f"{place}: {error.message[:200]}") from None
    bounded: Any = jsonschema.validators.extend(
        jsonschema.Draft202012Validator, {"pattern": functools.partial(_pattern, patterns)}
    )
    return bounded(schema), len(nodes)


def _nodes(value: object) -> Iterator[object]:
    """All objects and lists of it, itself included."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _nodes(inner)


def _patterns(node: object) -> Iterator[tuple[str, linear_regex.Pattern]]:
    """The node's expression, if it has one. Raises UnsuitableSchema, also for a keyword without a bound.

    A property that is called like such a keyword is refused with it.
    """
    if not isinstance(node, dict):
        return
    if refused := next((name for name in REFUSED if name in node), None):
        raise UnsuitableSchema(f"{refused}: a rule does not take {REFUSED[refused]}")
    expression = node.get("pattern")
    if isinstance(expression, str):
        try:
            yield expression, linear_regex.compile_pattern(expression)
        except UnsuitablePattern as error:
            raise UnsuitableSchema(f"pattern {json.dumps(expression)[:80]} is refused: {error}") from None


def _pattern(
    patterns: Mapping[str, linear_regex.Pattern], _validator: object, expression: str, instance: object, _schema: object
) -> Iterator[Exception]:
    """In place of jsonschema's, which searches with `re`."""
    import jsonschema

    if isinstance(instance, str) and not patterns[expression].search(instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {expression!r}")
