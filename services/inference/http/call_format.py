"""Calls in OpenAI's form, whole and as the deltas of a stream."""

import secrets
from collections.abc import Iterable

from services.inference.tool_calls.format import ToolFormat
from services.inference.tool_calls.reader import ArgumentsPart, CallBegins, CallReader, Part, TextPart

Object = dict[str, object]


class CallDeltas:
    """The deltas of one streamed answer."""

    def __init__(self, written: ToolFormat) -> None:
        self._reader = CallReader(written)

    @property
    def called(self) -> bool:
        """Whether a call began."""
        return bool(self._reader.calls)

    def feed(self, text: str) -> list[Object]:
        """What is final with this text."""
        return [_delta(part) for part in self._reader.feed(text)]

    def finish(self) -> list[Object]:
        """What was held back, where the answer ends."""
        return [_delta(part) for part in self._reader.finish()]


def message_of(answer: str, written: ToolFormat | None) -> Object:
    """The message of a whole answer."""
    message: Object = {"role": "assistant", "content": answer, "refusal": None}
    if written is None:
        return message
    reader = CallReader(written)
    text, calls = _joined([*reader.feed(answer), *reader.finish()])
    if not calls:
        return message | {"content": text}
    return message | {"content": text or None, "tool_calls": calls}


def _joined(parts: Iterable[Part]) -> tuple[str, list[Object]]:
    text, functions = "", list[dict[str, str]]()
    for part in parts:
        match part:
            case TextPart(more):
                text += more
            case CallBegins(_, name):
                functions.append({"name": name, "arguments": ""})
            case ArgumentsPart(at, more):
                functions[at]["arguments"] += more
    return text, [{"id": _call_id(), "type": "function", "function": one} for one in functions]


def _delta(part: Part) -> Object:
    match part:
        case TextPart(text):
            return {"content": text}
        case CallBegins(at, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": at, "id": _call_id(), "type": "function", "function": function}]}
        case ArgumentsPart(at, more):
            return {"tool_calls": [{"index": at, "function": {"arguments": more}}]}


def _call_id() -> str:
    """Nine letters and digits: Mistral's templates take no others."""
    return secrets.token_hex(5)[:9]
