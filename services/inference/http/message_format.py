"""An answer's parts in OpenAI's form of a chat, whole and as the deltas of a stream."""

from collections.abc import Iterable

from services.inference.answer_reader import AnswerFormat, AnswerPart, AnswerReader
from services.inference.reasoning import ThoughtPart
from services.inference.tool_calls.identity import new_call_id
from services.inference.tool_calls.reader import ArgumentsPart, CallBegins, TextPart

Object = dict[str, object]


class MessageDeltas:
    """The deltas of one streamed answer."""

    def __init__(self, written: AnswerFormat) -> None:
        self._reader = AnswerReader(written)

    @property
    def called(self) -> bool:
        """Whether a call began."""
        return self._reader.called

    def feed(self, text: str) -> list[Object]:
        """What is final with this text."""
        return [_delta(part) for part in self._reader.feed(text)]

    def finish(self) -> list[Object]:
        """What was held back, where the answer ends."""
        return [_delta(part) for part in self._reader.finish()]


def message_of(answer: str, written: AnswerFormat) -> Object:
    """The message of a whole answer."""
    message: Object = {"role": "assistant", "content": answer, "refusal": None}
    if written.is_text:
        return message
    reader = AnswerReader(written)
    text, thought, calls = _joined([*reader.feed(answer), *reader.finish()])
    if thought:
        message["reasoning_content"] = thought
    if not calls:
        return message | {"content": text}
    return message | {"content": text or None, "tool_calls": calls}


def _joined(parts: Iterable[AnswerPart]) -> tuple[str, str, list[Object]]:
    text, thought, functions = "", "", list[dict[str, str]]()
    for part in parts:
        match part:
            case TextPart(more):
                text += more
            case ThoughtPart(more):
                thought += more
            case CallBegins(_, name):
                functions.append({"name": name, "arguments": ""})
            case ArgumentsPart(at, more):
                functions[at]["arguments"] += more
    return text, thought, [{"id": new_call_id(), "type": "function", "function": one} for one in functions]


def _delta(part: AnswerPart) -> Object:
    match part:
        case TextPart(text):
            return {"content": text}
        case ThoughtPart(text):
            return {"reasoning_content": text}
        case CallBegins(at, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": at, "id": new_call_id(), "type": "function", "function": function}]}
        case ArgumentsPart(at, more):
            return {"tool_calls": [{"index": at, "function": {"arguments": more}}]}
