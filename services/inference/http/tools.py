"""What a request lets its answers call: OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from lora_core.grammar import Form
from services.inference.errors import BadRequest, Unsupported
from services.inference.http.parameters import Body
from services.inference.http.structured import Schema
from services.inference.tool_calls.form import CallRules, Function, form_of
from services.inference.tool_calls.format import ToolFormat

if TYPE_CHECKING:
    from services.inference.tokenizer import Vocabulary

Name = Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]


class FunctionTool(Body):
    """A function that may be called."""

    name: Name
    description: str | None = Field(default=None, max_length=16_384)
    parameters: Schema | None = None
    """JSON schema of an object; without it there are no arguments."""
    strict: bool | None = None
    """The schema is held either way."""


class Tool(Body):
    """OpenAI's only kind of tool that is a model's own matter."""

    type: Literal["function"]
    function: FunctionTool

    @property
    def shown(self) -> dict[str, object]:
        """As chat templates read it."""
        given = self.function.model_dump(exclude_none=True, exclude={"strict"})
        return {"type": self.type, "function": {"description": "", "parameters": _NO_ARGUMENTS, **given}}


_NO_ARGUMENTS: Mapping[str, object] = {"type": "object", "properties": {}}


class NamedFunction(Body):
    """The function that has to be called."""

    name: Name


class NamedTool(Body):
    """A choice of one function."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Body):
    """Some of the functions, of which an answer may or must call one. The others are not shown to the model."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=128)]


class AllowedChoice(Body):
    """A choice among some of the functions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice(value: object) -> str | None:
    if value in ("none", "auto", "required"):
        return "mode"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("function", "allowed_tools") else None


_CHOICES: dict[str, Any] = {
    "custom_error_type": "tool_choices",
    "custom_error_message": "expected none, auto, required, or an object of type function or allowed_tools; "
    "others are not supported",
}


class ToolFields(Body):
    """The fields of a request that concern calls."""

    tools: Annotated[list[Tool], Field(max_length=128)] = Field(default_factory=list)
    """Beside a choice of none of them they change nothing, and are left out of the prompt."""
    tool_choice: Annotated[
        Annotated[Literal["none", "auto", "required"], Tag("mode")]
        | Annotated[NamedTool, Tag("function")]
        | Annotated[AllowedChoice, Tag("allowed_tools")],
        Discriminator(_choice, **_CHOICES),
    ] = "auto"
    parallel_tool_calls: bool = True
    """Whether an answer may call more than once."""

    @property
    def must_call(self) -> bool:
        """Whether text is no answer."""
        match self.tool_choice:
            case AllowedChoice(allowed_tools=allowed):
                return allowed.mode == "required"
            case choice:
                return isinstance(choice, NamedTool) or choice == "required"

    @property
    def offered(self) -> Sequence[Tool]:
        """What may be called. Raises BadRequest for allowed functions that are not among the tools."""
        if self.tool_choice == "none":
            return ()
        if not isinstance(self.tool_choice, AllowedChoice):
            return self.tools
        names = {one.function.name for one in self.tool_choice.allowed_tools.tools}
        if missing := sorted(names - {one.function.name for one in self.tools}):
            message = f"tool_choice allows {missing[0]!r}, which tools does not have."
            raise BadRequest(message, code="invalid_value", param="tool_choice")
        return [one for one in self.tools if one.function.name in names]

    @property
    def callable_functions(self) -> list[Function]:
        """The functions among which the answer chooses. Raises BadRequest where what it has to call is not offered."""
        functions = [
            Function(one.function.name, one.function.parameters or {**_NO_ARGUMENTS, "additionalProperties": False})
            for one in self.offered
        ]
        names = [one.name for one in functions]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise BadRequest(f"tools has {twice!r} twice.", code="invalid_value", param="tools")
        if isinstance(self.tool_choice, NamedTool):
            wanted = self.tool_choice.function.name
            functions = [one for one in functions if one.name == wanted]
        if self.must_call and not functions:
            raise BadRequest(
                "tool_choice requires a call of what tools does not have.", code="invalid_value", param="tool_choice"
            )
        return functions


async def calls_of(
    body: ToolFields, vocabulary: Vocabulary, wanted: tuple[str, Form] | None = None
) -> tuple[ToolFormat, Form] | None:
    """How the answers of a request call, and the form that they are held to; None where they call nothing.

    wanted: the field that sets the form of answers that call nothing, and that form.

    Raises:
        BadRequest: what has to be called is not offered, or the form cannot be held beside that of calls.
        Unsupported: the model's chat template knows no calls, or writes them in a form that is not read here.
    """
    if not (functions := body.callable_functions):
        return None
    written = await vocabulary.tool_format()
    if written is None:
        raise Unsupported(
            "this base model's chat template shows its model no tools, or has it call in a form that is not read here "
            "(read are those of Hermes and Qwen, Llama 3, and Mistral up to v7): describe the functions in the system "
            "message, and read the answer yourself.",
            code="tools_unsupported",
            param="tools",
        )
    schema = None
    if wanted is not None and not body.must_call:
        name, form = wanted
        if form.kind != "json_schema" or not written.anywhere:
            message = f"tools and {name} each set the form of the answer: send one of them."
            raise BadRequest(message, code="invalid_value", param=name)
        schema = json.loads(form.source)
    rules = CallRules(must=body.must_call, several=body.parallel_tool_calls)
    return written, await asyncio.to_thread(form_of, functions, written, vocabulary.grammars.literal, rules, schema)
