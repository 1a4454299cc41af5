"""A request of `/v1/responses` as the chat that it is."""

from collections.abc import Sequence
from typing import Literal

from services.inference.errors import ApiError, BadRequest
from services.inference.http.messages import CalledFunction, ChatMessage, ToolCall
from services.inference.http.responses.items import (
    FunctionCallItem,
    FunctionResultItem,
    MessageItem,
    OwnItem,
    ReasoningItem,
    text_of,
)
from services.inference.http.responses.request import (
    AllowedFunctions,
    ChosenFunction,
    ResponseFunction,
    ResponseRequest,
    SchemaFormat,
)
from services.inference.http.schemas import ChatRequest
from services.inference.http.structured import JsonSchemaFormat, NamedSchema, ResponseFormat
from services.inference.http.tools import (
    AllowedChoice,
    AllowedTools,
    FunctionTool,
    NamedFunction,
    NamedTool,
    Tool,
)

MOST_TURNS = 1000
_SAME = (
    "model",
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "stream",
    "metadata",
    "user",
    "safety_identifier",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
    "priority",
    "fallback",
    "chat_template_kwargs",
)
"""Fields that are a chat's own."""
_NAMES = {
    "response_format.json_schema.schema": "text.format.schema",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "messages": "input",
}
"""What a chat calls a field → its name here."""


def turns_of(given: str | Sequence[OwnItem]) -> list[ChatMessage]:
    """The input as turns. What a model thought, wrote and called one after another is one turn of its."""
    if isinstance(given, str):
        return [ChatMessage(role="user", content=given)] if given else []
    turns: list[ChatMessage] = []
    for item in given:
        last = turns[-1] if turns and turns[-1].role == "assistant" else None
        match item:
            case MessageItem(role="assistant") if last and not last.text:
                last.content = text_of(item.content)
            case MessageItem():
                turns.append(ChatMessage(role=item.role, content=text_of(item.content)))
            case ReasoningItem():
                turns.append(ChatMessage(role="assistant", reasoning_content="".join(one.text for one in item.content)))
            case FunctionCallItem():
                call = ToolCall(id=item.call_id, function=CalledFunction(name=item.name, arguments=item.arguments))
                if last is None:
                    turns.append(ChatMessage(role="assistant", tool_calls=[call]))
                else:
                    last.tool_calls = [*last.tool_calls, call]
            case FunctionResultItem():
                output = text_of(item.output)
                turns.append(ChatMessage(role="tool", content=output, name=item.name, tool_call_id=item.call_id))
    return turns


def chat_of(body: ResponseRequest, turns: Sequence[ChatMessage]) -> ChatRequest:
    """The chat of these turns, which are those of the response that is continued and then the input's.

    Raises:
        BadRequest: no turns, too many, or the result of a call that was not made.
    """
    messages = [ChatMessage(role="system", content=body.instructions)] if body.instructions else []
    messages += turns
    _check(turns, len(messages))
    return ChatRequest(
        messages=messages,
        max_completion_tokens=body.max_output_tokens,
        logprobs=body.top is not None,
        top_logprobs=body.top,
        response_format=_format_of(body),
        tools=[_tool_of(one) for one in body.tools],
        tool_choice=_choice_of(body),
        # That a caller keeps a response permits no recording; one that is not to be kept is not recorded either.
        store=None if body.store else False,
        **{name: getattr(body, name) for name in _SAME},
    )


def as_here(error: ApiError) -> ApiError:
    """The same error, with the field at fault as this endpoint names it."""
    if (name := _NAMES.get(error.param or "")) is not None:
        error.message, error.param = error.message.replace(str(error.param), name), name
    return error


def _check(turns: Sequence[ChatMessage], messages: int) -> None:
    if not turns:
        raise BadRequest("input has no turns.", code="invalid_value", param="input")
    if messages > MOST_TURNS:
        message = f"the conversation has {messages} turns, at most {MOST_TURNS} are taken."
        raise BadRequest(message, code="invalid_value", param="input")
    called: set[str | None] = set()
    for turn in turns:
        called.update(one.id for one in turn.tool_calls)
        if turn.role == "tool" and turn.tool_call_id not in called:
            message = f"no function call of call_id {turn.tool_call_id!r} comes before its output."
            raise BadRequest(message, code="invalid_value", param="input")


def _format_of(body: ResponseRequest) -> ResponseFormat | None:
    given = body.text.format if body.text else None
    if isinstance(given, SchemaFormat):
        named = NamedSchema(name=given.name, description=given.description, schema=given.schema_, strict=given.strict)
        return JsonSchemaFormat(type="json_schema", json_schema=named)
    return given


def _tool_of(given: ResponseFunction) -> Tool:
    function = FunctionTool(
        name=given.name, description=given.description, parameters=given.parameters, strict=given.strict
    )
    return Tool(type="function", function=function)


def _choice_of(body: ResponseRequest) -> Literal["none", "auto", "required"] | NamedTool | AllowedChoice:
    match body.tool_choice:
        case ChosenFunction():
            return _named(body.tool_choice)
        case AllowedFunctions(mode=mode, tools=tools):
            allowed = AllowedTools(mode=mode, tools=[_named(one) for one in tools])
            return AllowedChoice(type="allowed_tools", allowed_tools=allowed)
        case mode:
            return mode


def _named(given: ChosenFunction) -> NamedTool:
    return NamedTool(type="function", function=NamedFunction(name=given.name))
