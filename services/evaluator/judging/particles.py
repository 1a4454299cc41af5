"""Small words that turn a statement although its content words stay: `only`, `except`, `or`, `may`, `from`. Pure.

English and German. Which words there are is in vocabulary.py; here an answer is compared with the expected output: how
often each kind is there, and which content word it belongs to where its place matters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from services.evaluator.judging.fact_overlap import STOP_STEMS, clauses, stem, terms
from services.evaluator.judging.text import fold, words
from services.evaluator.judging.vocabulary import ARTICLES, DIRECTIONS, MODALS, PARTICLES

_SCOPED = frozenset({"only", "not only", "in part"})
"""Kinds that belong to the content word behind them: `may open only` is another statement than `only ... may open`."""
_SPELLED = (
    (re.compile(r"\b(?:not|nicht) (only|just|merely|nur|bloß|allein)\b"), r"notonly"),
    (re.compile(r"\bes sei denn\b"), "unless"),
    (re.compile(r"\bevery (?:other|second)\b|\bjede[nrsm]? zweiten?\b"), "everyother"),
)
_NAME = {"notonly": "not only", "everyother": "in part"}
_KIND = {word: kind for kind, members in PARTICLES.items() for word in members} | _NAME
_DIRECTION = {word: kind for kind, members in DIRECTIONS.items() for word in members}


def particle_doubt(expected: str, answer: str) -> str:
    """How the answer's small words differ from those of the expected output; empty where they agree."""
    wanted, given = Counter(_particles(expected)), Counter(_particles(answer))
    for added in given - wanted:
        return f"has {_shown(added)}, and the expected output does not"
    for lost in wanted - given:
        return f"lacks {_shown(lost)} of the expected output"
    return _modal_doubt(expected, answer) or _direction_doubt(expected, answer)


def _shown(particle: tuple[str, str]) -> str:
    kind, head = particle
    return f"`{kind}` of {head!r}" if head else f"`{kind}`"


def _particles(text: str) -> Iterator[tuple[str, str]]:
    """Each particle's kind, with the content word behind it (or, at a clause's end, before it) where that matters."""
    for clause in clauses(text):
        spelled = fold(clause)
        for pattern, mark in _SPELLED:
            spelled = pattern.sub(mark, spelled)
        tokens = words(spelled)
        for place, word in enumerate(tokens):
            if kind := _KIND.get(word):
                yield kind, _head(tokens, place) if kind in _SCOPED else ""


def _head(tokens: Sequence[str], place: int) -> str:
    behind = _first_content(tokens[place + 1 :])
    return behind or _first_content(list(reversed(tokens[:place])))


def _first_content(tokens: Sequence[str]) -> str:
    for word in tokens:
        for term in terms(word):
            if term not in STOP_STEMS and word not in _KIND:
                return term
    return ""


def _modal_doubt(expected: str, answer: str) -> str:
    """Where the answer permits what has to be, or the reverse, in the order of the modal verbs."""
    sides = []
    for text in (expected, answer):
        found = [kind for word in words(text) for kind, members in MODALS.items() if word in members]
        sides.append([kind for place, kind in enumerate(found) if place == 0 or kind != found[place - 1]])
    if all(sides) and sides[0] != sides[1]:
        return f"has `{' '.join(sides[1])}` where `{' '.join(sides[0])}` is expected"
    return ""


def _direction_doubt(expected: str, answer: str) -> str:
    wanted, given = _directions(expected), _directions(answer)
    for head, kinds in given.items():
        if head in wanted and not kinds & wanted[head]:
            return f"has `{min(kinds)}` before {head!r} where `{min(wanted[head])}` is expected"
    return ""


def _directions(text: str) -> dict[str, set[str]]:
    """By content word: the prepositions of direction that it follows, articles between them aside."""
    found: dict[str, set[str]] = {}
    for clause in clauses(text):
        kind = ""
        for word in words(clause):
            if word in _DIRECTION:
                kind = _DIRECTION[word]
            elif word not in ARTICLES:
                if kind and stem(word) not in STOP_STEMS:
                    found.setdefault(stem(word), set()).add(kind)
                kind = ""
    return found
