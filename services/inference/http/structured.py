"""The form of answers: OpenAI's `response_format`, vLLM's `structured_outputs` and `guided_*`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from lora_core.grammar import ANY_OBJECT, MAX_SOURCE, Form, Grammar, UnsuitableForm
from services.inference.errors import BadRequest
from services.inference.http.parameters import Body

if TYPE_CHECKING:
    from services.inference.tokenizer import Vocabulary

MAX_DEPTH = 64


def _checked(schema: object) -> object:
    """The same, unless its objects and lists lie in each other too deep."""
    level: list[object] = [schema]
    for _ in range(MAX_DEPTH):
        level = [one for outer in level for one in _inside(outer)]
        if not level:
            return schema
    raise PydanticCustomError("too_deep", "objects and lists more than {depth} deep", {"depth": MAX_DEPTH})


def _inside(outer: object) -> Collection[object]:
    match outer:
        case dict():
            return outer.values()
        case list():
            return outer
    return ()


Schema = Annotated[dict[str, JsonValue], Field(max_length=1024), BeforeValidator(_checked)]
SchemaText = Annotated[str, Field(min_length=1, max_length=MAX_SOURCE)]
Expression = Annotated[str, Field(min_length=1, max_length=16_384)]
Choices = Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(min_length=1, max_length=512)]


class TextFormat(Body):
    """No form at all."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Body):
    """OpenAI's: a schema with its name."""

    name: str = Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")
    description: str | None = Field(default=None, max_length=4096)
    schema_: Schema = Field(alias="schema")
    strict: bool | None = None
    """The schema is held either way."""


class JsonSchemaFormat(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


_KINDS = ("text", "json_object", "json_schema")


def _kind(given: object) -> str | None:
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return kind if kind in _KINDS else None


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("text")]
    | Annotated[JsonObjectFormat, Tag("json_object")]
    | Annotated[JsonSchemaFormat, Tag("json_schema")],
    Discriminator(
        _kind,
        custom_error_type="response_formats",
        custom_error_message="expected an object whose type is text, json_object or json_schema",
    ),
]


class StructuredOutputs(Body):
    """vLLM's: one of them at most."""

    json_: Schema | SchemaText | None = Field(default=None, alias="json")
    regex: Expression | None = None
    choice: Choices | None = None
    json_object: bool | None = None


class FormFields(Body):
    """The fields of a request that set the form of its answers; at most one of them may."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    """vLLM's (not OpenAI's), as the three below, which are its former names."""
    guided_json: Schema | SchemaText | None = None
    guided_regex: Expression | None = None
    guided_choice: Choices | None = None

    def form(self) -> tuple[str, Form] | None:
        """The field that sets the form, and the form; None where answers are free text.

        Raises:
            BadRequest: several of them do, or a schema that is a text is no JSON.
        """
        found: list[tuple[str, Form]] = []
        match self.response_format:
            case JsonObjectFormat():
                found.append(("response_format", ANY_OBJECT))
            case JsonSchemaFormat(json_schema=named):
                found.append(("response_format.json_schema.schema", Form.of_json(named.schema_)))
        outputs = self.structured_outputs or StructuredOutputs()
        if outputs.json_object:
            found.append(("structured_outputs.json_object", ANY_OBJECT))
        for name, schema in (("structured_outputs.json", outputs.json_), ("guided_json", self.guided_json)):
            if schema is not None:
                found.append((name, Form.of_json(_read(name, schema))))
        for name, regex in (("structured_outputs.regex", outputs.regex), ("guided_regex", self.guided_regex)):
            if regex is not None:
                found.append((name, Form("regex", regex)))
        for name, choice in (("structured_outputs.choice", outputs.choice), ("guided_choice", self.guided_choice)):
            if choice is not None:
                found.append((name, Form.of_choice(choice)))
        if len(found) > 1:
            names = ", ".join(name for name, _ in found)
            message = f"{names} each set the form of the answer: send one of them."
            raise BadRequest(message, code="invalid_value", param=found[1][0])
        return found[0] if found else None


_SCHEMA = TypeAdapter[dict[str, JsonValue]](Schema)


def _read(name: str, schema: Schema | SchemaText) -> object:
    if not isinstance(schema, str):
        return schema
    try:
        return _SCHEMA.validate_json(schema)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BadRequest(f"{name} is no JSON schema: {reason}.", code="invalid_value", param=name) from error


async def grammar_of(body: FormFields, vocabulary: Vocabulary, calls: Form | None = None) -> Grammar | None:
    """What the answers of a request are held to, off the event loop.

    calls: the form of answers that may call tools; it has the request's own in it.

    Raises:
        BadRequest: a form that cannot be held; the message names what of it.
    """
    grammar = None
    for name, form in filter(None, (body.form(), ("tools", calls) if calls else None)):
        try:
            grammar = await asyncio.to_thread(vocabulary.grammars.of, form)
        except UnsuitableForm as error:
            raise BadRequest(f"{name}: {error}.".replace("..", "."), code="invalid_value", param=name) from error
    return grammar
