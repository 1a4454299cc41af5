"""Bodies of the /v1 API. What this server cannot do is refused by name, never passed over."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Stop = Annotated[str, Field(min_length=1, max_length=200)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""As OpenAI bounds it."""
Text = Annotated[str, Field(max_length=2_000_000)]
"""A prompt or a turn; its tokens are bounded by the base model's `max_prompt_tokens`."""
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=1_000_000)]


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Routed(BaseModel):
    """What the router said to ``model: auto``."""

    matched: bool
    """False: no adapter was near enough, the base model answered."""
    adapter_id: str | None = None
    score: float | None = None
    """Of the adapter, or of the nearest one where none was near enough."""
    threshold: float | None = None
    """From which score on it would have been, or was, near enough."""
    margin: float | None = None
    """How far the nearest adapter is before the second."""
    ambiguous: bool = False
    """Others suit about as well: POST /v1/route of the router names them."""
    reason: str


class Weighted(BaseModel):
    """One adapter of a set."""

    adapter_id: str
    artifact_sha256: str
    weight: float


class Fallback(BaseModel):
    """Another model answered than the requested one."""

    requested: str
    reason: str
    """The error's code that the request would have got."""
    message: str


class Provenance(BaseModel):
    """Who answered; the response's field ``lorafleet``."""

    adapter_id: str | None
    """None is the base model; of a set, the adapter with the largest weight."""
    artifact_sha256: str | None
    base_model: str
    base_model_revision: str
    routed: Routed | None
    """Only for ``model: auto``."""
    mix: list[Weighted] | None = None
    """Only for a weighted set: all of it."""
    fallback: Fallback | None = None
    """Only where the requested model could not serve and another was allowed to."""


class StreamOptions(Body):
    """Whether a stream ends with a chunk that carries the usage."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Sampling(Body):
    """Fields that chat and completions share; defaults are OpenAI's but for max_tokens (a setting)."""

    model: str = Field(min_length=1, max_length=300)
    max_tokens: int | None = Field(default=None, ge=0, lt=2**31)
    temperature: float = Field(default=1.0, ge=0.0, le=2.0)
    """Below 0.0001 it is greedy, as 0 is."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = Field(default=None)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    presence_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] = 0
    frequency_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] = 0
    ignore_eos: bool = False
    """Go on to max_tokens (not OpenAI's; vLLM has it under this name). For load tests."""
    user: str | None = Field(default=None, max_length=200)
    metadata: Metadata | None = None
    fallback: bool | Annotated[str, Field(min_length=1, max_length=300)] = False
    """May another model answer if this one cannot serve: true for the configured one, or its name (not OpenAI's)."""

    priority: int = Field(default=0, ge=-10, le=10)
    """As vLLM's (not OpenAI's): lower goes earlier in the queue for slots, by that many seconds."""

    @property
    def workflow(self) -> str:
        """The workflow that the request is a step of: ``metadata.workflow``."""
        return (self.metadata or {}).get("workflow", "")

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class TextPart(Body):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: Text


class ChatMessage(Body):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=1000)]
    name: str | None = Field(default=None, max_length=200)

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    logprobs: bool = False
    top_logprobs: Literal[0] | None = None
    response_format: Annotated[dict[Literal["type"], Literal["text"]], Field(max_length=1)] | None = None
    store: Literal[False] | None = None

    @property
    def query(self) -> str:
        """What the router is asked: the last user turn."""
        return next((one.text for one in reversed(self.messages) if one.role == "user"), self.messages[-1].text)


class CompletionRequest(Sampling):
    """POST /v1/completions. With ``echo`` and ``logprobs`` it gives the likelihood of each prompt token."""

    prompt: Text | TokenIds
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    """The log-probability of each token; other candidates are not given."""
    suffix: None = None
    best_of: Literal[1] = 1

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.prompt:
            raise ValueError("prompt must not be empty")
        return self


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class EmbeddingRequest(Body):
    """POST /v1/embeddings."""

    model: str = Field(min_length=1, max_length=300)
    input: (
        Annotated[Text, Field(min_length=1)]
        | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=256)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = Field(default=None, max_length=200)

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class FeedbackRequest(Body):
    """POST /v1/feedback."""

    generation_id: str = Field(min_length=1, max_length=500)
    """The ``id`` of the response."""
    rating: int = Field(ge=1, le=5)
    comment: str = Field(default="", max_length=4000)


class FeedbackAccepted(BaseModel):
    generation_id: str
    adapter_id: str | None
    rating: int
