"""Input items of `/v1/responses`, as clients send them: also a response's output, sent back as it came."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from services.inference.http.messages import Text
from services.inference.http.parameters import Body, Neutral, Small, Word

ItemId = Annotated[str, Field(max_length=1024)]
CallId = Annotated[str, Field(min_length=1, max_length=200)]
Status = Literal["in_progress", "completed", "incomplete"]

_TEXT_ALONE = "this server reads text: put it into the text"
_NO_PROGRAMS = "functions are called by the model itself"
_READ = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
_TEXTS = frozenset({"input_text", "output_text", "text"})


class TextContent(Body):
    """A piece of text of a message or of a function's result."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: Annotated[object, Neutral([[]], _TEXT_ALONE)] = None
    prompt_cache_breakpoint: Small | None = None

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        if given.get("type") not in _TEXTS:
            context = {"type": str(given.get("type"))[:40]}
            raise PydanticCustomError("not_text", "a part of type {type}, only text parts are read here", context)
        # Of an answer that is sent back: the model is not shown them.
        return {name: value for name, value in given.items() if name != "logprobs"}


class SummaryText(Body):
    """A piece of a summary of what a model thought. None is made here."""

    type: Literal["summary_text"]
    text: Text


class ReasoningText(Body):
    """A piece of what a model thought."""

    type: Literal["reasoning_text"]
    text: Text


def _content(value: object) -> str:
    return "parts" if isinstance(value, list) else "text"


Content = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[TextContent], Field(max_length=1000), Tag("parts")],
    Discriminator(_content),
]


def text_of(content: str | list[TextContent]) -> str:
    """All of its text."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class MessageItem(Body):
    """One turn."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    # Of an answer that is sent back: taken, and change nothing.
    id: ItemId | None = None
    status: Status | None = None
    phase: Word | None = None


class FunctionCallItem(Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: CallId
    name: str = Field(min_length=1, max_length=64)
    arguments: Annotated[str, Field(max_length=200_000)] = "{}"
    """JSON of an object; as the model wrote it, so it may be none."""
    caller: Annotated[object, Neutral([{"type": "direct"}], _NO_PROGRAMS)] = None
    namespace: Annotated[object, Neutral([""], _NO_PROGRAMS)] = None
    async_: Annotated[object, Neutral([False], _NO_PROGRAMS)] = Field(default=None, alias="async")
    id: ItemId | None = None
    status: Status | None = None


class FunctionResultItem(Body):
    """What a called function returned."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: Content
    name: str | None = Field(default=None, max_length=200)
    caller: Annotated[object, Neutral([{"type": "direct"}], _NO_PROGRAMS)] = None
    namespace: Annotated[object, Neutral([""], _NO_PROGRAMS)] = None
    id: ItemId | None = None
    status: Status | None = None


class ReasoningItem(Body):
    """What the model thought before its answer; shown to it where its chat template does that."""

    type: Literal["reasoning"]
    summary: list[SummaryText] = Field(default_factory=list, max_length=1000)
    content: list[ReasoningText] = Field(default_factory=list, max_length=1000)
    encrypted_content: Annotated[object, Neutral([""], "send the item's content")] = None
    id: ItemId | None = None
    status: Status | None = None


class ReferenceItem(Body):
    """An item of a response that is stored, in its place."""

    type: Literal["item_reference"] = "item_reference"
    id: str = Field(min_length=1, max_length=1024)


def _kind(given: object) -> str | None:
    if isinstance(given, Mapping):
        # OpenAI's short forms of a message and of a reference have no type.
        kind = given.get("type") or ("message" if "role" in given else "item_reference" if "id" in given else None)
    else:
        kind = getattr(given, "type", None)
    return kind if kind in _READ else None


OwnItem = MessageItem | FunctionCallItem | FunctionResultItem | ReasoningItem
"""An item that stands for itself."""
InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionResultItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ReferenceItem, Tag("item_reference")],
    Discriminator(
        _kind,
        custom_error_type="input_items",
        custom_error_message=f"expected an item of type {', '.join(_READ)}; other ones are not supported here",
    ),
]
