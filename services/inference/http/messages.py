"""The turns of a conversation, as clients send them: also an answer's message, sent back as it came."""

import json
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from services.inference.http.parameters import Body, Neutral, Small, Word

Text = Annotated[str, Field(max_length=2_000_000)]
"""A prompt or a turn; its tokens are bounded by the base model's `max_prompt_tokens`."""

_TEXT_ALONE = "this server reads text: put it into the turn's content"
_NO_FUNCTIONS = "the former name of tool_calls: use these"


class TextPart(Body):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: Text
    cache_control: Small | None = None
    prompt_cache_breakpoint: Small | None = None

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("type") != "text":
            context = {"type": str(given.get("type"))[:40]}
            raise PydanticCustomError("not_text", "a part of type {type}, only text parts are read here", context)
        return given


def _content(value: object) -> str:
    return "parts" if isinstance(value, list) else "text"


class CalledFunction(Body):
    """A function with the arguments of one call."""

    name: str = Field(min_length=1, max_length=64)
    arguments: Annotated[str, Field(max_length=200_000)] = "{}"
    """JSON of an object; as the model wrote it, so it may be none."""


class ToolCall(Body):
    """A call in an assistant's turn."""

    id: str | None = Field(default=None, max_length=200)
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(default=None, ge=0, lt=2**31)
    """Taken, and changes nothing."""

    @property
    def shown(self) -> dict[str, object]:
        """As chat templates read it: the arguments are an object, where they are one."""
        try:
            arguments: object = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError):
            arguments = self.function.arguments
        call: dict[str, object] = {"type": self.type, "function": {"name": self.function.name, "arguments": arguments}}
        if self.id:
            call["id"] = self.id
        return call


class ChatMessage(Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        Annotated[Text, Tag("text")] | Annotated[list[TextPart], Field(max_length=1000), Tag("parts")],
        Discriminator(_content),
    ] = ""
    """An assistant's may be missing: so clients send an empty answer back."""
    name: str | None = Field(default=None, max_length=200)
    tool_call_id: str | None = Field(default=None, max_length=200)
    refusal: Annotated[object, Neutral([""], _TEXT_ALONE)] = None
    annotations: Annotated[object, Neutral([[]], _TEXT_ALONE)] = None
    audio: Annotated[object, Neutral([], _TEXT_ALONE)] = None
    reasoning_content: Text | None = None
    """What the model thought before its answer; templates show it to the model, or leave it out, as it was trained."""
    reasoning: Text | None = None
    """The same, as some servers name it."""
    function_call: Annotated[object, Neutral([], _NO_FUNCTIONS)] = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] = Field(default_factory=list)
    provider_specific_fields: Annotated[object, Neutral([{}], _TEXT_ALONE)] = None
    """LiteLLM's."""

    # Of an answer that is sent back: taken, and change nothing.
    id: Word | None = None
    created: int | None = Field(default=None, ge=0, lt=2**63)
    index: int | None = Field(default=None, ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_members(cls, given: object) -> object:
        """Clients send an answer back with members of their own, as images and thinking_blocks, empty here."""
        if not isinstance(given, dict) or given.get("role") != "assistant":
            return given
        return {
            name: member for name, member in given.items() if name in cls.model_fields or member not in ("", [], {})
        }

    @model_validator(mode="after")
    def _require_content(self) -> Self:
        if "content" not in self.model_fields_set and self.role not in {"assistant", "function"}:
            raise PydanticCustomError("no_content", "a turn of role {role} without content", {"role": self.role})
        return self

    @property
    def text(self) -> str:
        """All of its text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)

    @property
    def turn(self) -> tuple[str, str]:
        """(role, text): the newer and the older name of a role are one."""
        return {"developer": "system", "function": "tool"}.get(self.role, self.role), self.text

    @property
    def shown(self) -> dict[str, object]:
        """All that chat templates read."""
        role, text = self.turn
        turn: dict[str, object] = {"role": role, "content": text}
        if role == "assistant" and (thought := self.reasoning_content or self.reasoning):
            turn["reasoning_content"] = thought
        if self.tool_calls:
            turn["tool_calls"] = [one.shown for one in self.tool_calls]
        if role == "tool":
            turn |= {name: value for name in ("name", "tool_call_id") if (value := getattr(self, name))}
        return turn
