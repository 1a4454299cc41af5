"""`OutputItems`: the parts of an answer as output items, and the events that announce them as they come.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.inference.answer_reader import AnswerPart
from services.inference.reasoning import ThoughtPart
from services.inference.tool_calls.identity import new_call_id
from services.inference.tool_calls.reader import ArgumentsPart, CallBegins, TextPart

Object = dict[str, object]
Event = tuple[str, Object]
"""Its type, and its fields beside type and number."""
Delta = tuple[int, int, int]
"""The index of an item, and how many characters and listed tokens one event added to it."""


@dataclass(eq=False, slots=True)
class _Open:
    """The item that is being written. field: of the events that carry its text."""

    kind: str
    index: int
    item: Object
    field: str
    text: str = ""
    part: Object | None = None
    """The content part that its text is; None where the item itself has it."""
    logprobs: list[Object] | None = None
    """Those of the part, where such parts have them."""

    @property
    def at(self) -> Object:
        where: Object = {"item_id": self.item["id"], "output_index": self.index}
        return where if self.part is None else where | {"content_index": 0}


def item_id(kind: str, index: int, response_id: str) -> str:
    """The id of an item, from which that of its response can be read."""
    return f"{kind}_{index}_{response_id}"


def response_of(item: str) -> str:
    """The id of the response that an item is of; empty where the item's id is none of `item_id`."""
    return item.split("_", 2)[2] if item.count("_") >= 2 else ""


class OutputItems:
    """The output of one response. `items` are in the order in which the model wrote them, `deltas` in what pieces."""

    def __init__(self, response_id: str, call_id: Callable[[], str] = new_call_id) -> None:
        """call_id: the id of the next call."""
        self._response_id = response_id
        self._call_id = call_id
        self.deltas: list[Delta] = []
        self._open: _Open | None = None
        self.items: list[Object] = []

    def take(self, part: AnswerPart, logprobs: Sequence[Object] = ()) -> Iterator[Event]:
        """The events of a part. logprobs: of its tokens, where it is text and they are requested."""
        match part:
            case TextPart(text):
                yield from self._begin_text()
                yield from self._add(text, logprobs)
            case ThoughtPart(text):
                yield from self._begin_thought()
                yield from self._add(text)
            case CallBegins(_, name):
                yield from self._close("completed")
                call: Object = {"type": "function_call", "call_id": self._call_id(), "name": name, "arguments": ""}
                yield from self._begin("fc", call, "response.function_call_arguments")
            case ArgumentsPart(_, text):
                yield from self._add(text)

    def finish(self, *, cut_off: bool) -> Iterator[Event]:
        """The events of the end. An answer of nothing at all is a message without text."""
        if not self.items:
            yield from self._begin_text()
        yield from self._close("incomplete" if cut_off else "completed")

    def _begin_text(self) -> Iterator[Event]:
        if self._open is None or self._open.kind != "msg":
            yield from self._close("completed")
            logprobs: list[Object] = []
            part: Object = {"type": "output_text", "text": "", "annotations": [], "logprobs": logprobs}
            message: Object = {"type": "message", "role": "assistant", "content": []}
            yield from self._begin("msg", message, "response.output_text", part, logprobs)

    def _begin_thought(self) -> Iterator[Event]:
        if self._open is None or self._open.kind != "rs":
            yield from self._close("completed")
            part: Object = {"type": "reasoning_text", "text": ""}
            thought: Object = {"type": "reasoning", "summary": [], "content": []}
            yield from self._begin("rs", thought, "response.reasoning_text", part)

    def _begin(
        self, kind: str, item: Object, field: str, part: Object | None = None, logprobs: list[Object] | None = None
    ) -> Iterator[Event]:
        index = len(self.items)
        item = {"id": item_id(kind, index, self._response_id), "status": "in_progress", **item}
        self.items.append(item)
        self._open = _Open(kind, index, item, field)
        yield "response.output_item.added", {"output_index": index, "item": item}
        if part is not None:
            self._open.part, self._open.logprobs, item["content"] = part, logprobs, [part]
            yield "response.content_part.added", self._open.at | {"part": part}

    def _add(self, text: str, logprobs: Sequence[Object] = ()) -> Iterator[Event]:
        now = self._open
        if now is None or not (text or logprobs):
            return
        now.text += text
        self.deltas.append((now.index, len(text), 0 if now.logprobs is None else len(logprobs)))
        listed: Object = {}
        if now.logprobs is not None:
            now.logprobs += logprobs
            listed = {"logprobs": list(logprobs)}
        yield f"{now.field}.delta", now.at | {"delta": text} | listed

    def _close(self, status: str) -> Iterator[Event]:
        now, self._open = self._open, None
        if now is None:
            return
        now.item["status"] = status
        if now.part is None:
            now.item["arguments"] = now.text
            yield f"{now.field}.done", now.at | {"name": now.item["name"], "arguments": now.text}
        else:
            now.part["text"] = now.text
            listed = {} if now.logprobs is None else {"logprobs": now.logprobs}
            yield f"{now.field}.done", now.at | {"text": now.text} | listed
            yield "response.content_part.done", now.at | {"part": now.part}
        yield "response.output_item.done", {"output_index": now.index, "item": now.item}
