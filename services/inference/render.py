"""Answers in OpenAI's forms: https://platform.openai.com/docs/api-reference/chat/object and .../completions/object."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from fleet_events.v1 import Adapter

from .engine_thread import Token
from .errors import ApiError, ServerFault
from .generation import End, Piece
from .schemas import Provenance, Usage
from .slots.states import Draining, Failed, Loaded, State, Yielding
from .text import Decodes


class Form(Protocol):
    """How one endpoint's answer looks, whole and as server-sent events."""

    def whole(self, pieces: Sequence[Piece], end: End, prompt_tokens: int) -> dict[str, object]: ...
    def begin(self) -> Iterator[str]: ...
    def chunk(self, piece: Piece | End) -> str: ...
    def usage_chunk(self, end: End, prompt_tokens: int) -> str: ...
    def error(self, error: Exception) -> str: ...
    def done(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Echo:
    """The prompt's tokens, the log-probability of each (the first has none), and where each begins."""

    ids: list[int]
    logprobs: list[float | None]
    offsets: list[int]


@dataclass(kw_only=True)
class _Envelope:
    """What both forms share."""

    id: str
    model: str
    provenance: Provenance
    tokenizer: Decodes
    logprobs: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def _wrap(self, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "lorafleet": self.provenance.model_dump(),
        }

    def error(self, error: Exception) -> str:
        """The last event of a stream that broke."""
        told = error if isinstance(error, ApiError) else ServerFault("the answer broke off", code="engine_failed")
        return _event(told.body())

    def done(self) -> str:
        return "data: [DONE]\n\n"

    def _piece_of(self, token: Token) -> str:
        return self.tokenizer.decode([token.id], skip_special_tokens=False)


@dataclass(kw_only=True)
class Chat(_Envelope):
    """POST /v1/chat/completions."""

    def whole(self, pieces: Sequence[Piece], end: End, prompt_tokens: int) -> dict[str, object]:
        content = "".join(piece.text for piece in pieces)
        choice: dict[str, object] = {
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": self._logprobs(pieces) if self.logprobs else None,
            "finish_reason": end.reason,
        }
        return self._wrap("chat.completion", [choice]) | {"usage": _usage(prompt_tokens, end)}

    def begin(self) -> Iterator[str]:
        yield self._chunk({"role": "assistant", "content": ""}, None, None)

    def chunk(self, piece: Piece | End) -> str:
        if isinstance(piece, End):
            return self._chunk({}, piece.reason, None)
        return self._chunk({"content": piece.text}, None, self._logprobs([piece]) if self.logprobs else None)

    def usage_chunk(self, end: End, prompt_tokens: int) -> str:
        return _event(self._wrap("chat.completion.chunk", []) | {"usage": _usage(prompt_tokens, end)})

    def _chunk(self, delta: dict[str, object], reason: str | None, logprobs: object) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return _event(self._wrap("chat.completion.chunk", [choice]))

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, object]:
        content = []
        for piece in pieces:
            for token in piece.tokens:
                text = self._piece_of(token)
                content.append(
                    {"token": text, "logprob": token.logprob, "bytes": list(text.encode()), "top_logprobs": []}
                )
        return {"content": content, "refusal": None}


@dataclass(kw_only=True)
class Completion(_Envelope):
    """POST /v1/completions."""

    echo: Echo | None = None
    _offset: int = 0

    def whole(self, pieces: Sequence[Piece], end: End, prompt_tokens: int) -> dict[str, object]:
        answer = "".join(piece.text for piece in pieces)
        head = self.tokenizer.decode(self.echo.ids, skip_special_tokens=False) if self.echo else ""
        self._offset = len(head)
        logprobs = self._logprobs(pieces) if self.logprobs else None
        if logprobs is not None and self.echo is not None:
            prompt = self._echoed(self.echo)
            logprobs = {name: [*prompt[name], *values] for name, values in logprobs.items()}
        choice: dict[str, object] = {
            "index": 0,
            "text": head + answer,
            "logprobs": None if logprobs is None else {**logprobs, "top_logprobs": None},
            "finish_reason": end.reason,
        }
        return self._wrap("text_completion", [choice]) | {"usage": _usage(prompt_tokens, end)}

    def begin(self) -> Iterator[str]:
        return iter(())

    def chunk(self, piece: Piece | End) -> str:
        reason, text, logprobs = None, "", None
        if isinstance(piece, End):
            reason = piece.reason
        else:
            text = piece.text
            logprobs = {**self._logprobs([piece]), "top_logprobs": None} if self.logprobs else None
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return _event(self._wrap("text_completion", [choice]))

    def usage_chunk(self, end: End, prompt_tokens: int) -> str:
        return _event(self._wrap("text_completion", []) | {"usage": _usage(prompt_tokens, end)})

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, list[object]]:
        tokens: list[object] = []
        logprobs: list[object] = []
        offsets: list[object] = []
        for piece in pieces:
            for token in piece.tokens:
                text = self._piece_of(token)
                tokens.append(text)
                logprobs.append(token.logprob)
                offsets.append(self._offset)
                self._offset += len(text)
        return {"tokens": tokens, "token_logprobs": logprobs, "text_offset": offsets}

    def _echoed(self, echo: Echo) -> dict[str, list[object]]:
        return {
            "tokens": [self._piece_of(Token(one, 0.0)) for one in echo.ids],
            "token_logprobs": list(echo.logprobs),
            "text_offset": list(echo.offsets),
        }


def model_entry(
    name: str, created: int, *, root: str, parent: str | None = None, **details: object
) -> dict[str, object]:
    """One entry of /v1/models."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "lorafleet",
        "root": root,
        "parent": parent,
        **details,
    }


def adapter_details(adapter: Adapter, *, active: bool) -> dict[str, object]:
    """What /v1/models adds to an adapter."""
    return {
        "family": adapter.family,
        "version": adapter.version,
        "domain": adapter.domain,
        "active": active,
        "artifact_sha256": adapter.artifact.blob.sha256,
        "base_model_revision": adapter.base_model.revision,
        "description": adapter.description,
    }


def state(state: State) -> dict[str, object]:
    """An adapter's state for operators."""
    shown: dict[str, object] = {"state": type(state).__name__.lower()}
    match state:
        case Loaded(proof=proof, users=users) | Yielding(proof=proof, users=users):
            shown |= {"users": users, "proof": asdict(proof)}
        case Draining(reason=reason, users=users):
            shown |= {"users": users, "reason": reason}
        case Failed(failure=failure):
            shown |= {"code": failure.code, "reason": failure.reason, "transient": failure.transient}
        case _:
            pass
    return shown


def _usage(prompt_tokens: int, end: End) -> dict[str, int]:
    total = prompt_tokens + end.completion_tokens
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=end.completion_tokens, total_tokens=total).model_dump()


def _event(body: dict[str, object]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
