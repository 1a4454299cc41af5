"""The kinds of rule that criteria.py reads: each looks at an answer's text alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import linear_regex
from services.evaluator.judging.number_words import to_digits
from services.evaluator.judging.text import fold, phrase_at, plain, words

READ_LIMIT = 8_000  # characters of an answer that a regular expression looks at


class Rule(Protocol):
    """One checkable demand. `text` is the rule as written, for the reasoning."""

    @property
    def text(self) -> str: ...

    def holds(self, answer: str) -> bool: ...


@dataclass(frozen=True)
class Phrases:
    """At least `need` of the folded `phrases` occur in the answer; with need 0, none does."""

    text: str
    phrases: tuple[str, ...]
    need: int

    def holds(self, answer: str) -> bool:
        folded = fold(answer)
        counted = to_digits(folded)
        found = sum(phrase_at(p, folded) or phrase_at(to_digits(p), counted) for p in self.phrases)
        return found >= self.need if self.need else found == 0


@dataclass(frozen=True)
class Edge:
    """The answer starts (or ends) with one of the folded phrases."""

    text: str
    phrases: tuple[str, ...]
    at_end: bool

    def holds(self, answer: str) -> bool:
        bare = fold(answer).strip(" \"'.,:;!?*#-()")
        cut = [phrase.strip(" \"'.,:;!?*#-()") for phrase in self.phrases]
        if self.at_end:
            return any(bare.endswith(p) and phrase_at(p, bare[-len(p) - 2 :]) for p in cut)
        return any(bare.startswith(p) and phrase_at(p, bare[: len(p) + 2]) for p in cut)


@dataclass(frozen=True)
class Exact:
    """The answer is one of the folded `phrases`, and nothing more."""

    text: str
    phrases: tuple[str, ...]

    def holds(self, answer: str) -> bool:
        return _trimmed(answer) in {_trimmed(phrase) for phrase in self.phrases}


def _trimmed(text: str) -> str:
    return to_digits(fold(text)).strip(" \"'.,:;!?*#-()")


@dataclass(frozen=True)
class Pattern:
    """The expression is found in the answer, or, if `absent`, is not."""

    text: str
    expression: linear_regex.Pattern
    absent: bool

    def holds(self, answer: str) -> bool:
        return self.expression.search(plain(answer)[:READ_LIMIT]) is not self.absent


@dataclass(frozen=True)
class Length:
    """The answer's number of words is within the closed range."""

    text: str
    least: int
    most: int | None

    def holds(self, answer: str) -> bool:
        return self.least <= len(words(answer)) and (self.most is None or len(words(answer)) <= self.most)


@dataclass(frozen=True)
class Note:
    """Free text; not scored here."""

    text: str

    def holds(self, answer: str) -> bool:  # noqa: ARG002
        return True


@dataclass(frozen=True)
class Unreadable:
    """A stored rule that was taken once and is no longer: it never holds, and its text gives the reason."""

    text: str

    def holds(self, answer: str) -> bool:  # noqa: ARG002
        return False
