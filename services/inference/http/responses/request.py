"""The body of POST /v1/responses. What this server cannot do is refused by name, never passed over."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from services.inference.http.messages import Text
from services.inference.http.parameters import Body, Neutral, Small, Word
from services.inference.http.responses.items import InputItem
from services.inference.http.schemas import Metadata, StreamOptions
from services.inference.http.structured import JsonObjectFormat, NamedSchema, TextFormat
from services.inference.http.template_variables import TemplateVariables
from services.inference.http.tools import FunctionTool, Name

LOGPROBS = "message.output_text.logprobs"
_NO_CONVERSATIONS = "continue a response with previous_response_id, or send all items"
_NO_PROMPTS = "send the text as instructions and input"
_NO_CHECK = "this server judges no texts: ask a moderation service before or after"
_NO_MEDIA = "this server reads and writes text alone"
_WHOLE = "prompts are read whole: cut the input to the model's context yourself"
_NO_SEARCH = "there are no tools but functions here"


class ResponseFunction(FunctionTool):
    """A function that may be called."""

    type: Literal["function"]
    defer_loading: Annotated[object, Neutral([False], _NO_SEARCH)] = None
    allowed_callers: Annotated[object, Neutral([["direct"]], _NO_SEARCH)] = None
    output_schema: Annotated[object, Neutral([], "describe it in the function's description")] = None
    async_: Annotated[object, Neutral([False], _NO_SEARCH)] = Field(default=None, alias="async")


def _kind_of_tool(given: object) -> str | None:
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return "function" if kind == "function" else None


ResponseTool = Annotated[
    Annotated[ResponseFunction, Tag("function")],
    Discriminator(
        _kind_of_tool,
        custom_error_type="tools",
        custom_error_message="expected a tool of type function; built-in tools and MCP servers are not supported here",
    ),
]


class ChosenFunction(Body):
    """A choice of one function."""

    type: Literal["function"]
    name: Name


class AllowedFunctions(Body):
    """A choice among some of the functions. The others are not shown to the model."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenFunction], Field(min_length=1, max_length=128)]


class SchemaFormat(NamedSchema):
    """JSON of a schema, as this endpoint has it: in one object."""

    type: Literal["json_schema"]


def _kind_of_format(given: object) -> str | None:
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return kind if kind in ("text", "json_object", "json_schema") else None


class TextConfig(Body):
    """The form of the answer."""

    format: (
        Annotated[
            Annotated[TextFormat, Tag("text")]
            | Annotated[JsonObjectFormat, Tag("json_object")]
            | Annotated[SchemaFormat, Tag("json_schema")],
            Discriminator(
                _kind_of_format,
                custom_error_type="formats",
                custom_error_message="expected an object whose type is text, json_object or json_schema",
            ),
        ]
        | None
    ) = None
    verbosity: Word | None = None
    """Taken, and changes nothing."""


class ReasoningConfig(Body):
    """How a model is to think: taken, and changes nothing. `chat_template_kwargs` sets what its template reads."""

    effort: Word | None = None
    summary: Word | None = None
    generate_summary: Word | None = None
    context: Word | None = None
    mode: Word | None = None


_INPUTS: dict[str, Any] = {
    "custom_error_type": "inputs",
    "custom_error_message": "expected a text or a list of items",
}


_CHOICES: dict[str, Any] = {
    "custom_error_type": "tool_choices",
    "custom_error_message": "expected none, auto, required, a function's type and name, or allowed_tools; "
    "others are not supported",
}


def _choice(value: object) -> str | None:
    if value in ("none", "auto", "required"):
        return "mode"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("function", "allowed_tools") else None


def _input(value: object) -> str | None:
    return "text" if isinstance(value, str) else "items" if isinstance(value, list) else None


class ResponseRequest(Body):
    """POST /v1/responses. Fields that are named as those of a chat are a chat's."""

    model: str = Field(min_length=1, max_length=300)
    input: Annotated[
        Annotated[Text, Tag("text")] | Annotated[list[InputItem], Field(max_length=1000), Tag("items")],
        Discriminator(_input, **_INPUTS),
    ] = Field(default_factory=list)
    """May be left out where a response is continued."""
    instructions: Text | None = None
    """A system turn before all others. It is not carried on to the next response."""
    previous_response_id: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    tools: Annotated[list[ResponseTool], Field(max_length=128)] = Field(default_factory=list)
    tool_choice: Annotated[
        Annotated[Literal["none", "auto", "required"], Tag("mode")]
        | Annotated[ChosenFunction, Tag("function")]
        | Annotated[AllowedFunctions, Tag("allowed_tools")],
        Discriminator(_choice, **_CHOICES),
    ] = "auto"
    parallel_tool_calls: bool = True
    text: TextConfig | None = None
    include: Annotated[
        list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]], Field(max_length=8)
    ] = Field(default_factory=list)
    """The second changes nothing: reasoning comes in the open."""
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    stream: bool = False
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    store: bool = True
    """Whether the response can be read and continued afterwards. False: nothing of it is recorded either."""
    user: str | None = Field(default=None, max_length=200)
    safety_identifier: Word | None = None

    # Not OpenAI's, as chats have them.
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100.0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    priority: int = Field(default=0, ge=-10, le=10)
    fallback: bool | Annotated[str, Field(min_length=1, max_length=300)] = False
    chat_template_kwargs: TemplateVariables | None = None

    # Taken, and change nothing.
    reasoning: ReasoningConfig | None = None
    service_tier: Word | None = None
    prompt_cache_key: Word | None = None
    prompt_cache_retention: Word | None = None
    prompt_cache_options: Small | None = None
    max_tool_calls: int | None = Field(default=None, ge=1, lt=2**31)
    """Of built-in tools, which are none."""

    background: Annotated[object, Neutral([False], "read the response as it comes, or stream it")] = None
    background_options: Annotated[object, Neutral([], "read the response as it comes, or stream it")] = None
    truncation: Annotated[object, Neutral(["disabled"], _WHOLE)] = None
    context_management: Annotated[object, Neutral([[]], _WHOLE)] = None
    conversation: Annotated[object, Neutral([], _NO_CONVERSATIONS)] = None
    prompt: Annotated[object, Neutral([], _NO_PROMPTS)] = None
    moderation: Annotated[object, Neutral([], _NO_CHECK)] = None
    image: Annotated[object, Neutral([], _NO_MEDIA)] = None
    access_programs: Annotated[object, Neutral([], "this server has none")] = None

    @property
    def top(self) -> int | None:
        """How many candidates are listed for each position; None: log-probabilities are not requested."""
        return self.top_logprobs or 0 if LOGPROBS in self.include or self.top_logprobs is not None else None
