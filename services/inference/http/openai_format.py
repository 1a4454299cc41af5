"""Answers in OpenAI's forms: https://platform.openai.com/docs/api-reference/chat/object and .../completions/object."""

import codecs
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from services.inference.answer_reader import PLAIN, AnswerFormat
from services.inference.answer_task import End
from services.inference.engine_thread import Token
from services.inference.errors import ApiError, ServerFault
from services.inference.http.logprobs import TokenLogprobs
from services.inference.http.message_format import MessageDeltas, message_of
from services.inference.http.provenance import Provenance
from services.inference.http.schemas import Usage
from services.inference.pieces import Piece
from services.inference.token_bytes import TokenBytes


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that is echoed before its answer: its text, and its tokens where those are requested."""

    text: str
    tokens: Sequence[Token] = ()
    offsets: Sequence[int] = ()
    """The character at which each token begins."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One whole answer."""

    pieces: Sequence[Piece]
    end: End
    echo: Echo | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> list[Token]:
        return [token for piece in self.pieces for token in piece.tokens]


class Form(Protocol):
    """How one endpoint's answers look, whole and as server-sent events. index: which of several answers it is."""

    async def whole(self, answers: Sequence[Answered], prompt_tokens: int) -> dict[str, object]: ...
    def begin(self, index: int, echo: Echo | None) -> Iterator[str]: ...
    def chunk(self, index: int, piece: Piece | End) -> str: ...
    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> str: ...
    def error(self, error: Exception) -> str: ...
    async def done(self) -> str: ...


@dataclass(kw_only=True)
class _Envelope:
    """What both forms share."""

    id: str
    model: str
    provenance: Provenance
    tokens: TokenBytes
    top: int | None
    """Candidates listed for each place; None: no log-probabilities."""
    usage: bool = False
    """Whether a stream ends with a chunk that carries the usage."""
    generation_ids: Sequence[str] = ()
    """Of each answer; in the response where there are several."""
    comparison_id: str = ""
    """Of all of them, where they are answers to one prompt."""
    models: Sequence[str] = ()
    compared: Sequence[Provenance] = ()
    """Of each answer, where several models were compared: what was requested, and who answered."""
    created: int = field(default_factory=lambda: int(time.time()))

    def _wrap(self, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "lorafleet": self._provenance(),
        }

    def _provenance(self) -> dict[str, object]:
        return self._named_provenance | ({"comparison_id": self.comparison_id} if self.comparison_id else {})

    @cached_property
    def _named_provenance(self) -> dict[str, object]:
        """Every chunk has it: it is written once."""
        return {} if self.compared else self.provenance.model_dump()

    def _named(self, index: int) -> dict[str, object]:
        """What a choice has of its own, where there are several."""
        if len(self.generation_ids) < 2:
            return {}
        named: dict[str, object] = {"generation_id": self.generation_ids[index]}
        if self.compared:
            named |= {"model": self.models[index], "lorafleet": self.compared[index].model_dump()}
        return named

    def _chunked(self, kind: str, choice: dict[str, object]) -> str:
        return _event(self._wrap(kind, [choice]) | ({"usage": None} if self.usage else {}))

    def error(self, error: Exception) -> str:
        """The last event of a stream that broke."""
        failure = error if isinstance(error, ApiError) else ServerFault("the answer broke off", code="engine_failed")
        return _event(failure.body())

    async def done(self) -> str:
        return "data: [DONE]\n\n"


def _reason(end: End, *, called: bool) -> str:
    return "tool_calls" if called and end.reason == "stop" else end.reason


@dataclass(kw_only=True)
class Chat(_Envelope):
    """POST /v1/chat/completions."""

    formats: Sequence[AnswerFormat] = ()
    """How each answer is read; none for text alone."""
    _listed: dict[int, TokenLogprobs] = field(default_factory=dict)
    _deltas: dict[int, MessageDeltas] = field(default_factory=dict)

    async def whole(self, answers: Sequence[Answered], prompt_tokens: int) -> dict[str, object]:
        choices: list[dict[str, object]] = [
            {
                "index": index,
                "message": (message := message_of(answer.text, self._written(index))),
                "logprobs": self._logprobs(index, answer.tokens),
                "finish_reason": _reason(answer.end, called="tool_calls" in message),
            }
            | self._named(index)
            for index, answer in enumerate(answers)
        ]
        return self._wrap("chat.completion", choices) | {"usage": _usage(prompt_tokens, _tokens_of(answers))}

    def begin(self, index: int, echo: Echo | None) -> Iterator[str]:  # noqa: ARG002 - conversations have none
        yield self._chunk(index, {"role": "assistant", "content": ""}, None, None)

    def chunk(self, index: int, piece: Piece | End) -> str:
        if not (written := self._written(index)).is_text:
            return self._read_chunk(index, piece, self._deltas.setdefault(index, MessageDeltas(written)))
        if isinstance(piece, End):
            return self._chunk(index, {}, piece.reason, None)
        return self._chunk(index, {"content": piece.text}, None, self._logprobs(index, piece.tokens))

    def _written(self, index: int) -> AnswerFormat:
        return self.formats[index] if self.formats else PLAIN

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> str:
        wrapped = self._wrap("chat.completion.chunk", [])
        return _event(wrapped | {"usage": _usage(prompt_tokens, completion_tokens)})

    def _read_chunk(self, index: int, piece: Piece | End, deltas: MessageDeltas) -> str:
        """A chunk for each delta of an answer that is not text alone."""
        if isinstance(piece, End):
            chunks = [self._chunk(index, delta, None, None) for delta in deltas.finish()]
            return "".join([*chunks, self._chunk(index, {}, _reason(piece, called=deltas.called), None)])
        first, *further = deltas.feed(piece.text) or [{"content": ""}]  # log-probabilities come in any case
        chunks = [self._chunk(index, first, None, self._logprobs(index, piece.tokens))]
        return "".join([*chunks, *(self._chunk(index, delta, None, None) for delta in further)])

    def _chunk(self, index: int, delta: dict[str, object], reason: str | None, logprobs: object) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason} | self._named(index)
        return self._chunked("chat.completion.chunk", choice)

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> dict[str, object] | None:
        if self.top is None:
            return None
        listed = self._listed.setdefault(index, TokenLogprobs(self.tokens, self.top))
        return {"content": listed.of(tokens), "refusal": None}


class _Offsets:
    """Where each token of a text begins: its characters before, incomplete ones not counted."""

    def __init__(self, at: int = 0) -> None:
        self._at = at
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.begun = at > 0

    def next(self, token: bytes | None) -> int:
        begins, self.begun = self._at, True
        self._at += len(self._characters.decode(token or b""))
        return begins


@dataclass(kw_only=True)
class Completion(_Envelope):
    """POST /v1/completions."""

    _offsets: dict[int, _Offsets] = field(default_factory=lambda: defaultdict(_Offsets))

    async def whole(self, answers: Sequence[Answered], prompt_tokens: int) -> dict[str, object]:
        choices: list[dict[str, object]] = []
        for index, answer in enumerate(answers):
            head, prompt = self._head(index, answer.echo) if answer.echo else ("", None)
            logprobs = self._logprobs(index, answer.tokens)
            if logprobs is not None and prompt is not None:
                logprobs = {name: [*prompt[name], *values] for name, values in logprobs.items()}
            choices.append(
                {
                    "index": index,
                    "text": head + answer.text,
                    "logprobs": logprobs,
                    "finish_reason": answer.end.reason,
                }
                | self._named(index)
            )
        return self._wrap("text_completion", choices) | {"usage": _usage(prompt_tokens, _tokens_of(answers))}

    def begin(self, index: int, echo: Echo | None) -> Iterator[str]:
        """The prompt that is echoed; else nothing, as the answer's first chunk is text already."""
        if echo is not None:
            text, logprobs = self._head(index, echo)
            yield self._chunk(index, text, logprobs, None)

    def chunk(self, index: int, piece: Piece | End) -> str:
        reason, text, logprobs = None, "", None
        if isinstance(piece, End):
            reason = piece.reason
        else:
            text, logprobs = piece.text, self._logprobs(index, piece.tokens)
        return self._chunk(index, text, logprobs, reason)

    def _chunk(self, index: int, text: str, logprobs: object, reason: str | None) -> str:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason} | self._named(index)
        return self._chunked("text_completion", choice)

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> str:
        return _event(self._wrap("text_completion", []) | {"usage": _usage(prompt_tokens, completion_tokens)})

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> dict[str, list[object]] | None:
        if self.top is None:
            return None
        listed: dict[str, list[object]] = {name: [] for name in _COLUMNS}
        offsets = self._offsets[index]
        for token in tokens:
            first = not offsets.begun
            listed["tokens"].append(self.tokens.shown(token.id, first=first))
            listed["token_logprobs"].append(token.logprob)
            listed["text_offset"].append(offsets.next(self.tokens.of(token.id, first=first)))
            listed["top_logprobs"].append(self._candidates(token, first))
        return listed

    def _candidates(self, token: Token, first: bool) -> dict[str, float] | None:
        """As OpenAI's: the likeliest, and the token itself, which need not be one of them."""
        if not self.top:
            return None
        found = {self.tokens.shown(one, first=first): logprob for one, logprob in token.alternatives[: self.top]}
        return found | {self.tokens.shown(token.id, first=first): token.logprob}

    def _head(self, index: int, echo: Echo) -> tuple[str, dict[str, list[object]] | None]:
        """What comes before an answer: its prompt, with log-probabilities where those are requested."""
        self._offsets[index] = _Offsets(len(echo.text))
        return echo.text, self._echoed(echo) if self.top is not None else None

    def _echoed(self, echo: Echo) -> dict[str, list[object]]:
        """The first token has no log-probability: nothing is before it."""
        shown = [self.tokens.shown(one.id, first=not at) for at, one in enumerate(echo.tokens)]
        return {
            "tokens": [*shown],
            "token_logprobs": [one.logprob if at else None for at, one in enumerate(echo.tokens)],
            "top_logprobs": [self._candidates(one, False) if at else None for at, one in enumerate(echo.tokens)],
            "text_offset": [*echo.offsets],
        }


_COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def _tokens_of(answers: Sequence[Answered]) -> int:
    return sum(answer.end.completion_tokens for answer in answers)


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    total = prompt_tokens + completion_tokens
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total).model_dump()


def _event(body: dict[str, object]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
