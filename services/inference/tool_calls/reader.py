"""`CallReader`: splits an answer, as it comes, into text and the calls in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.inference.overlap import overlap
from services.inference.tool_calls.format import ToolFormat


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text beside the calls."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegins:
    """A call begins; `index` counts from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsPart:
    """More of the JSON of a call's arguments."""

    index: int
    text: str


Part = TextPart | CallBegins | ArgumentsPart


class CallReader:
    """Reads one answer that was held to the form of its calls. `calls` is how many began."""

    def __init__(self, written: ToolFormat) -> None:
        self._format = written
        self._held = ""
        """Came, and may be the beginning of what is no text."""
        self._read: Callable[[], Iterator[Part]] = self._text
        self._begins = True
        """Whether no text came yet."""
        self._object = _ObjectEnd()
        self.calls = 0

    def feed(self, text: str) -> Iterator[Part]:
        """What is final with this text."""
        self._held += text
        before = None
        while before != (self._read, self._held):
            before = (self._read, self._held)
            yield from self._read()

    def finish(self) -> Iterator[Part]:
        """What was held back, where the answer ends."""
        if self._held and self._read == self._text and not (self.calls and self._held.isspace()):
            yield TextPart(self._held)
        self._held = ""

    def _text(self) -> Iterator[Part]:
        head = self._format.head
        if self._format.anywhere:
            found = self._held.find(head)
            end = found if found >= 0 else len(self._held) - overlap(self._held, head)
        else:
            found = 0 if self._begins and self._held.startswith(head) else -1
            end = 0 if found == 0 or (self._begins and head.startswith(self._held)) else len(self._held)
        text = self._held[:end]
        if text and not (self.calls and text.isspace()):
            self._begins = False
            self._held = self._held[end:]
            found -= end if found >= 0 else 0
            yield TextPart(text)
        if found >= 0:
            self._held = self._held[found + len(head) :]
            self._read = self._name

    def _name(self) -> Iterator[Part]:
        name, middle, rest = self._held.partition(self._format.middle)
        if middle:
            self._held, self._read, self._object = rest, self._arguments, _ObjectEnd()
            self.calls += 1
            yield CallBegins(self.calls - 1, name)

    def _arguments(self) -> Iterator[Part]:
        end = self._object.find(self._held)
        text = self._held if end is None else self._held[:end]
        self._held = self._held[len(text) :]
        if end is not None:
            self._read = self._behind
        if text:
            yield ArgumentsPart(self.calls - 1, text)

    def _behind(self) -> Iterator[Part]:
        """Behind the arguments: the end of the call, then the next one, or text."""
        one, written = "}", self._format
        if written.listed:
            following, closing = one + written.between + '{"name": "', one + written.end
        else:
            closing = one + written.end
            following = closing + written.between + written.head
        if self._held.startswith(following) and written.several:
            self._held, self._read = self._held[len(following) :], self._name
        elif self._held.startswith(closing) and not following.startswith(self._held):
            self._held, self._read = self._held[len(closing) :], self._text
        yield from ()


class _ObjectEnd:
    """Finds where a JSON object ends that comes piece by piece."""

    def __init__(self) -> None:
        self._depth, self._quoted, self._escaped = 0, False, False

    def find(self, piece: str) -> int | None:
        """How much of the piece belongs to the object; None for all of it, and more to come."""
        for at, character in enumerate(piece, start=1):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = character == "\\", character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    return at
        return None
