"""A response in OpenAI's form, whole and as events: https://platform.openai.com/docs/api-reference/responses/object."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from services.inference.answer_reader import AnswerReader
from services.inference.answer_task import AnswerTask, End
from services.inference.engine_thread import Token
from services.inference.errors import ApiError
from services.inference.http.logprobs import TokenLogprobs
from services.inference.http.openai_format import Answered, Echo
from services.inference.http.responses.output import Delta, Event, Object, OutputItems
from services.inference.http.responses.replay import written
from services.inference.http.responses.request import ResponseRequest
from services.inference.pieces import Piece
from services.inference.tool_calls.reader import TextPart

Keep = Callable[[Object, Sequence[Delta]], Awaitable[bool]]
"""Stores a whole response, and in what pieces its text came; whether it could."""


@dataclass(kw_only=True)
class ResponseForm:
    """POST /v1/responses: the form of its one answer. keep: None where the response is not to be stored."""

    body: ResponseRequest
    task: AnswerTask
    reader: AnswerReader
    keep: Keep | None
    _created: int = field(default_factory=lambda: int(time.time()))
    _number: int = -1
    """Of the last event."""
    _end: End | None = None
    _thought: int = 0
    """Tokens of what the model thought."""
    _unlisted: list[Token] = field(default_factory=list)
    """Tokens whose text has not come yet."""
    _output: OutputItems = field(init=False)
    _logprobs: TokenLogprobs | None = field(init=False)

    def __post_init__(self) -> None:
        self._output = OutputItems(self.task.generation_id)
        top, tokens = self.body.top, self.task.chosen.hosted.vocabulary.bytes
        self._logprobs = None if top is None else TokenLogprobs(tokens, top)

    async def whole(self, answers: Sequence[Answered], prompt_tokens: int) -> Object:  # noqa: ARG002 - the task has it
        """The response."""
        [answer] = answers
        coming: list[Piece | End] = [*answer.pieces, answer.end]
        for piece in coming:
            for _ in self._events(piece):
                pass
        return await self._ended()

    def begin(self, index: int, echo: Echo | None) -> Iterator[str]:  # noqa: ARG002 - there is one answer, without echo
        """The events before the first token."""
        for kind in ("response.created", "response.in_progress"):
            yield self._sent((kind, {"response": self._response("in_progress", store=self.body.store)}))

    def chunk(self, index: int, piece: Piece | End) -> str:  # noqa: ARG002
        """The events of a piece, of which there may be none."""
        return self._written(self._events(piece))

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> str:  # noqa: ARG002
        """Nothing: the last event has it."""
        return ""

    def error(self, error: Exception) -> str:
        """The last event of a stream that broke."""
        message = error.message if isinstance(error, ApiError) else "the answer broke off"
        failed = self._response("failed", store=False) | {"error": {"code": "server_error", "message": message}}
        return self._sent(("response.failed", {"response": failed}))

    async def done(self) -> str:
        """The last event."""
        response = await self._ended()
        return self._sent((f"response.{response['status']}", {"response": response}))

    def _events(self, piece: Piece | End) -> Iterator[Event]:
        if isinstance(piece, End):
            self._end = piece
            for part in self.reader.finish():
                yield from self._output.take(part, self._listed() if isinstance(part, TextPart) else ())
            yield from self._output.finish(cut_off=piece.reason == "length")
            return
        self._unlisted += piece.tokens
        thought = self.reader.thinking
        for part in self.reader.feed(piece.text):
            logprobs = self._listed()  # of thoughts and calls there are none, as at OpenAI
            yield from self._output.take(part, logprobs if isinstance(part, TextPart) else ())
        self._thought += len(piece.tokens) if thought or self.reader.thinking else 0

    def _listed(self) -> list[Object]:
        tokens, self._unlisted = self._unlisted, []
        if self._logprobs is None:
            return []
        return [_with_bytes(one) for one in self._logprobs.of(tokens)]

    def _written(self, events: Iterable[Event]) -> str:
        return "".join(self._sent(event) for event in events)

    def _sent(self, event: Event) -> str:
        self._number += 1
        return written(self._number, event)

    async def _ended(self) -> Object:
        status = "incomplete" if self._end and self._end.reason == "length" else "completed"
        response = self._response(status, store=self.keep is not None)
        # What the response tells of itself is what will be found.
        if self.keep is not None and not await self.keep(response, self._output.deltas):
            response["store"] = False
        return response

    def _response(self, status: str, *, store: bool) -> Object:
        body, sampling = self.body, self.task.sampling
        ended = status in ("completed", "incomplete")
        return {
            "id": self.task.generation_id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": body.max_tool_calls,
            "model": body.model,
            "output": list(self._output.items),
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": body.previous_response_id,
            "prompt_cache_key": body.prompt_cache_key,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": body.safety_identifier,
            "service_tier": "default",
            "store": store,
            "temperature": sampling.temperature,
            "text": {"format": _format_of(body)},
            "tool_choice": body.tool_choice if isinstance(body.tool_choice, str) else body.tool_choice.model_dump(),
            "tools": [
                {"type": one.type, "name": one.name, "description": one.description, "parameters": one.parameters}
                | {"strict": one.strict is not False}
                for one in body.tools
            ],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": self._usage() if ended else None,
            "user": body.user,
            "metadata": body.metadata or {},
            "lorafleet": self.task.chosen.provenance.model_dump(),
        }

    def _usage(self) -> Object:
        read = len(self.task.prompt_ids)
        written = self._end.completion_tokens if self._end else 0
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": self._thought},
            "total_tokens": read + written,
        }


def _format_of(body: ResponseRequest) -> Object:
    given = body.text.format if body.text else None
    return given.model_dump(by_alias=True, exclude_none=True) if given else {"type": "text"}


def _with_bytes(one: Object) -> Object:
    """As this endpoint lists a token: one that no text shows has no bytes, not null."""
    likeliest = one["top_logprobs"]
    assert isinstance(likeliest, list)
    return {
        **one,
        "bytes": one["bytes"] or [],
        "top_logprobs": [{**it, "bytes": it["bytes"] or []} for it in likeliest],
    }
