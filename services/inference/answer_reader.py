"""`AnswerReader`: splits an answer, as it comes, into what the model thinks, its text, and the calls in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.inference.reasoning import ThoughtMarks, ThoughtPart, ThoughtReader
from services.inference.tool_calls.format import ToolFormat
from services.inference.tool_calls.reader import CallReader, Part, TextPart

AnswerPart = Part | ThoughtPart


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How an answer is read.

    calls: how it calls functions, where it may. thoughts: the marks around what the model thinks first, where its
    template or tokenizer has some; begun: the prompt ends within a thought.
    """

    calls: ToolFormat | None = None
    thoughts: ThoughtMarks | None = None
    begun: bool = False

    @property
    def is_text(self) -> bool:
        """Whether all of it is text."""
        return self.calls is None and self.thoughts is None


PLAIN = AnswerFormat()


class AnswerReader:
    """Reads one answer."""

    def __init__(self, written: AnswerFormat) -> None:
        self._calls = CallReader(written.calls) if written.calls else None
        self._thoughts = ThoughtReader(written.thoughts, begun=written.begun) if written.thoughts else None

    @property
    def called(self) -> bool:
        """Whether a call began."""
        return self._calls is not None and bool(self._calls.calls)

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought, as far as is known."""
        return self._thoughts is not None and self._thoughts.thinking

    def feed(self, text: str) -> Iterator[AnswerPart]:
        """What is final with this text."""
        if self._thoughts is not None:
            return self._with_calls(self._thoughts.feed(text))
        return self._with_calls([TextPart(text)] if text else [])

    def finish(self) -> Iterator[AnswerPart]:
        """What was held back, where the answer ends."""
        if self._thoughts is not None:
            yield from self._with_calls(self._thoughts.finish())
        if self._calls is not None:
            yield from self._calls.finish()

    def _with_calls(self, parts: Iterable[TextPart | ThoughtPart]) -> Iterator[AnswerPart]:
        for part in parts:
            if self._calls is not None and isinstance(part, TextPart):
                yield from self._calls.feed(part.text)
            else:
                yield part
