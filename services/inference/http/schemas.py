"""Bodies of the /v1 API. What this server cannot do is refused by name, never passed over."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from services.inference.http.messages import ChatMessage, Text
from services.inference.http.parameters import EXPECTED, Body, Neutral, Small, Word, several, shape_of, without_nulls
from services.inference.http.structured import FormFields
from services.inference.http.template_variables import TemplateVariables
from services.inference.http.tools import ToolFields

ModelName = Annotated[str, Field(min_length=1, max_length=300)]
MOST_COMPARED = 4
"""Models that answer one request side by side."""
Stop = Annotated[str, Field(min_length=1, max_length=200)]
_STOPS: dict[str, Any] = {
    "custom_error_type": "stops",
    "custom_error_message": "expected a text of 1 to 200 characters, or a list of up to 16 of them",
}


def _one_or_many(stop: object) -> str | None:
    """Whether it is a stop string or a list of them; an empty text is neither."""
    match stop:
        case str() if stop:
            return "text"
        case list():
            return "list"
    return None


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
    BeforeValidator(without_nulls),
]
"""As OpenAI bounds it."""
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=1_000_000)]
LogitBias = Annotated[
    dict[Annotated[str, Field(max_length=10, pattern="^[0-9]+$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=1024),
    BeforeValidator(without_nulls),
]
"""Token id, as text (a name in JSON) → what is added to its logit."""

_NO_FUNCTIONS = "the former name: use tools and tool_choice"
_NO_GRAMMAR = "use response_format with a JSON schema, guided_regex or guided_choice"
_NO_MEDIA = "this server reads and writes text alone"
_NO_REACH = "this server looks nothing up: put what the model should know into the messages"
_NO_CHECK = "this server judges no texts: ask a moderation service before or after"
_NO_TEMPLATE = "conversations are rendered by the model's own chat template: use /v1/completions for another one"
_STRINGS = "answers are plain text without special tokens, ended before a stop string"
_SEARCH = "answers are drawn one token after another: use n and seed"
_WHOLE = "prompts are read whole: cut it to the model's context yourself"


class StreamOptions(Body):
    """Whether a stream ends with a chunk that carries the usage."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """Taken, and changes nothing: there is none."""
    continuous_usage_stats: Annotated[object, Neutral([False], "set include_usage for the stream's end")] = None


class GenerationRequest(FormFields):
    """Fields that chat and completions share.

    What is not set is the base model's own (`generation_config.json`), else OpenAI's, but for max_tokens (a setting).
    """

    model: str = Field(min_length=1, max_length=300)
    max_tokens: int | None = Field(default=None, ge=0, lt=2**31)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    """Below 0.0001 it is greedy, as 0 is."""
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    """Not OpenAI's, as vLLM has it: 0 and -1 are all tokens."""
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    """Not OpenAI's, as vLLM has it."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: (
        Annotated[
            Annotated[Stop, Tag("text")] | Annotated[list[Stop], Field(max_length=16), Tag("list")],
            Discriminator(_one_or_many, **_STOPS),
        ]
        | None
    ) = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    """Not OpenAI's, as vLLM has it."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=8)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100.0)
    """Not OpenAI's, as vLLM and transformers have it: over prompt and answer."""
    logit_bias: LogitBias | None = None
    ignore_eos: bool = False
    """Go on to max_tokens (not OpenAI's; vLLM has it under this name). For load tests."""
    metadata: Metadata | None = None
    fallback: bool | Annotated[str, Field(min_length=1, max_length=300)] = False
    """May another model answer if this one cannot serve: true for the configured one, or its name (not OpenAI's)."""

    priority: int = Field(default=0, ge=-10, le=10)
    """As vLLM's (not OpenAI's): lower goes earlier in the queue for slots, by that many seconds."""

    user: str | None = Field(default=None, max_length=200)
    """Who of the caller's own users asks: while a version is rolled out, one user gets one version."""
    safety_identifier: Word | None = None
    """The same, in the place of `user`."""
    store: bool | None = None
    """False: the answers are not recorded, also where the domain's policy permits it."""

    # Taken, and change nothing.
    service_tier: Word | None = None
    prompt_cache_key: Word | None = None
    prompt_cache_retention: Word | None = None
    prompt_cache_options: Small | None = None

    # vLLM's, where they ask for what happens anyway.
    skip_special_tokens: Annotated[object, Neutral([True], _STRINGS)] = None
    spaces_between_special_tokens: Annotated[object, Neutral([True, False], _STRINGS)] = None
    include_stop_str_in_output: Annotated[object, Neutral([False], _STRINGS)] = None
    min_tokens: Annotated[object, Neutral([0], "set ignore_eos to go on to max_tokens")] = None
    best_of: Annotated[object, Neutral([1], "answers are not ranked; n gives several")] = None
    """As large as `n` it leaves nothing to choose."""
    use_beam_search: Annotated[object, Neutral([False], _SEARCH)] = None
    length_penalty: Annotated[object, Neutral([1], _SEARCH)] = None
    bad_words: Annotated[object, Neutral([[]], "use logit_bias")] = None
    allowed_token_ids: Annotated[object, Neutral([], "use logit_bias")] = None
    truncate_prompt_tokens: Annotated[object, Neutral([-1], _WHOLE)] = None
    prompt_logprobs: Annotated[object, Neutral([], "use echo and logprobs of /v1/completions")] = None
    return_token_ids: Annotated[object, Neutral([False], "tokens come with logprobs")] = None
    guided_grammar: Annotated[object, Neutral([], _NO_GRAMMAR)] = None

    @field_validator("best_of", mode="before")
    @classmethod
    def _as_many_as_are_answered(cls, best_of: object, info: ValidationInfo) -> object:
        return 1 if best_of == info.data.get("n") else best_of

    @property
    def workflow(self) -> str:
        """The workflow that the request is a step of: `metadata.workflow`."""
        return (self.metadata or {}).get("workflow", "")

    @property
    def end_user(self) -> str:
        """Who of the caller's own users asks, empty where the request does not tell."""
        return self.safety_identifier or self.user or ""

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(GenerationRequest, ToolFields):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    compare: list[ModelName] = Field(default_factory=list, max_length=MOST_COMPARED)
    """Two or more models that answer side by side, one choice each (not OpenAI's); `model` may then be left out."""
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    chat_template_kwargs: TemplateVariables | None = None
    """As vLLM's: values of variables that the model's chat template reads, such as `enable_thinking`."""

    # Taken, and change nothing.
    reasoning_effort: Word | None = None
    verbosity: Word | None = None

    functions: Annotated[object, Neutral([[]], _NO_FUNCTIONS)] = None
    function_call: Annotated[object, Neutral(["none", "auto"], _NO_FUNCTIONS)] = None
    modalities: Annotated[object, Neutral([["text"]], _NO_MEDIA)] = None
    audio: Annotated[object, Neutral([], _NO_MEDIA)] = None
    prediction: Annotated[object, Neutral([], "leave it out: the answer is the same without it")] = None
    web_search_options: Annotated[object, Neutral([], _NO_REACH)] = None
    moderation: Annotated[object, Neutral([], _NO_CHECK)] = None
    echo: Annotated[object, Neutral([False], "use /v1/completions")] = None
    add_generation_prompt: Annotated[object, Neutral([True], "use /v1/completions")] = None
    continue_final_message: Annotated[object, Neutral([False], "use /v1/completions")] = None
    add_special_tokens: Annotated[object, Neutral([False], _NO_TEMPLATE)] = None
    chat_template: Annotated[object, Neutral([], _NO_TEMPLATE)] = None
    documents: Annotated[object, Neutral([[]], "put them into the messages")] = None

    @model_validator(mode="before")
    @classmethod
    def _none_of_them_is_called(cls, given: object) -> object:
        if (
            isinstance(given, dict)
            and given.get("function_call") == "none"
            and isinstance(given.get("functions"), list)
        ):
            return {name: value for name, value in given.items() if name != "functions"}
        return given

    @model_validator(mode="before")
    @classmethod
    def _the_first_compared_is_the_model(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("model") is None and isinstance(given.get("compare"), list):
            return {**given, "model": next(iter(given["compare"]), None)}
        return given

    @model_validator(mode="after")
    def _compares_models_alone(self) -> Self:
        if not self.compare:
            return self
        if len(self.compare) < 2 or len(set(self.compare)) < len(self.compare) or self.model not in self.compare:
            wanted = "compare names two or more models, each once, and `model` is one of them or left out"
            raise PydanticCustomError("compare", "{wanted}", {"wanted": wanted})
        for name in ("logprobs", "fallback"):
            if getattr(self, name):
                told = {"name": name}
                raise PydanticCustomError("compare", "{name} is not supported with compare; leave it out", told)
        if self.n > 1:
            raise PydanticCustomError("compare", "n is not supported with compare: each model gives one answer")
        return self

    @model_validator(mode="after")
    def _candidates_come_with_tokens(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            context = {"count": self.top_logprobs}
            raise PydanticCustomError("no_logprobs", "top_logprobs is {count}: set logprobs to true for it", context)
        return self

    @property
    def top(self) -> int | None:
        """How many candidates are listed for each position; None: log-probabilities are not requested."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def calls_functions(self) -> bool:
        """Whether the conversation has calls, or its answer may have some."""
        return bool(self.offered) or any(one.tool_calls or one.role == "tool" for one in self.messages)

    @property
    def user_turns(self) -> list[str]:
        """What the router is queried with: the user's turns, or the last turn of any role where there is none."""
        return [one.text for one in self.messages if one.role == "user"] or [self.messages[-1].text]


class CompletionRequest(GenerationRequest):
    """POST /v1/completions. With `echo` and `logprobs` it gives the likelihood of each prompt token."""

    prompt: Annotated[
        Annotated[Text, Field(min_length=1), Tag("text")]
        | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=128), Tag("texts")]
        | Annotated[TokenIds, Tag("ids")]
        | Annotated[list[TokenIds], Field(max_length=128), Tag("lists")],
        Discriminator(shape_of, **EXPECTED),
    ]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """The log-probability of each token, and of so many candidates at its position."""
    suffix: Annotated[object, Neutral([""], "put all of the text into the prompt")] = None
    add_special_tokens: Annotated[object, Neutral([True], "send token ids for a prompt without them")] = None

    @property
    def top(self) -> int | None:
        """How many candidates are listed for each position; None: log-probabilities are not requested."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, a text or token ids."""
        return several(self.prompt)


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class EmbeddingRequest(Body):
    """POST /v1/embeddings."""

    model: str = Field(min_length=1, max_length=300)
    input: Annotated[
        Annotated[Text, Field(min_length=1), Tag("text")]
        | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=2048), Tag("texts")]
        | Annotated[TokenIds, Tag("ids")]
        | Annotated[list[TokenIds], Field(max_length=2048), Tag("lists")],
        Discriminator(shape_of, **EXPECTED),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, lt=2**31)
    """Only the first so many numbers of each vector, made one of length 1 again."""
    user: str | None = Field(default=None, max_length=200)
    """Taken, and changes nothing."""

    @property
    def inputs(self) -> list[str | list[int]]:
        """Each text, or its token ids."""
        return several(self.input)
