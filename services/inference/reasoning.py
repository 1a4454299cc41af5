"""What a model thinks before its answer: the marks around it, and `ThoughtReader`, which tells it from the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.inference.overlap import overlap
from services.inference.tool_calls.reader import TextPart


@dataclass(frozen=True, slots=True)
class ThoughtPart:
    """Text of what the model thinks."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtMarks:
    """What stands before and behind a thought."""

    begin: str
    end: str


THINK = ThoughtMarks("<think>", "</think>")
"""Qwen 3, DeepSeek R1 and their kin."""


class ThoughtReader:
    """Reads one answer as it comes: a thought at its beginning, if there is one, then text.

    begun: the prompt ends in the first mark, so the answer begins within a thought. White space at the ends of a
    thought and behind it is left out; everything else comes out as the one or the other. A thought that is not closed
    is one up to the answer's end.
    """

    def __init__(self, marks: ThoughtMarks, *, begun: bool) -> None:
        self._marks = marks
        self._begun = begun
        self._held = ""
        self._read: Callable[[], Iterator[ThoughtPart | TextPart]] = self._first
        self._thought_has_text = False

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought, as far as is known."""
        return self._read == self._thought or (self._read == self._first and self._begun)

    def feed(self, text: str) -> Iterator[ThoughtPart | TextPart]:
        """What is final with this text."""
        self._held += text
        before = None
        while before != self._read:
            before = self._read
            yield from before()

    def finish(self) -> Iterator[ThoughtPart | TextPart]:
        """What was held back, where the answer ends."""
        held, self._held = self._held, ""
        if held and self._read != self._behind:
            yield ThoughtPart(held) if self.thinking else TextPart(held)

    def _first(self) -> Iterator[ThoughtPart | TextPart]:
        begin = self._held.lstrip()
        if begin.startswith(self._marks.begin):
            self._held, self._read = begin[len(self._marks.begin) :], self._thought
        elif not self._marks.begin.startswith(begin):
            self._read = self._thought if self._begun else self._text
        yield from ()

    def _thought(self) -> Iterator[ThoughtPart | TextPart]:
        thought, mark, rest = self._held.partition(self._marks.end)
        if not self._thought_has_text:
            thought = thought.lstrip()
        # White space may be the last before the mark, and so may what the mark begins with.
        sure = len(thought) if mark else len(thought) - overlap(thought, self._marks.end)
        text = thought[:sure].rstrip()
        if text:
            self._thought_has_text = True
            yield ThoughtPart(text)
        if mark:
            self._held, self._read = rest, self._behind
        else:
            self._held = thought[len(text) :]

    def _behind(self) -> Iterator[ThoughtPart | TextPart]:
        self._held = self._held.lstrip()
        if self._held:
            self._read = self._text
        yield from ()

    def _text(self) -> Iterator[ThoughtPart | TextPart]:
        text, self._held = self._held, ""
        if text:
            yield TextPart(text)
