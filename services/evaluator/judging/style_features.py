"""The outer form of an answer beside the expected output: length, format, register, repetition. Pure."""

from __future__ import annotations

import re
from collections import Counter

from services.evaluator.judging.text import sentences, words
from services.evaluator.judging.vocabulary import ENGLISH, GERMAN

_TEMPLATE = re.compile(
    r"<\|[^|>]{1,40}\|>|</?s>|\[/?INST\]|<<SYS>>|<(?:start|end)_of_turn>|\{\{[^}]*\}\}"
    r"|^\s*(?:#{2,}\s*(?:instruction|response|input)\b|(?:user|assistant|system)\s*:)",
    re.I | re.M,
)
_MARKUP = {
    "a list": re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.M),
    "headings": re.compile(r"^\s*#{1,6}\s+\S", re.M),
    "code": re.compile(r"```"),
    "bold text": re.compile(r"\*\*[^*\n]+\*\*"),
}
_CASUAL = {
    "slang": re.compile(r"\b(?:gonna|wanna|gotta|kinda|yeah|nope|lol|btw|dunno|hey|dude)\b", re.I),
    "exclamations": re.compile(r"!"),
    "emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]"),
}


def stylistic_form(expected: str, answer: str, circling: float = 0.0) -> tuple[float, str]:
    """Part in [0, 1] and reason: as long, in the same format, register and language as the expected output."""
    ratio = len(words(answer)) / max(1, len(words(expected)))
    part, notes = _length(ratio) * (1 - circling), [f"{ratio:.1f} times the expected length"]
    for factor, note in _departures(expected, answer):
        part *= factor
        notes.append(note)
    return part, "; ".join(notes)


def _length(ratio: float) -> float:
    """1 from half to twice the length, falling to 0 at a twentieth and at eight times."""
    if ratio < 0.5:
        return max(0.0, (ratio - 0.05) / 0.45)
    return max(0.0, min(1.0, (8 - ratio) / 6))


def _departures(expected: str, answer: str) -> list[tuple[float, str]]:
    found = [
        (0.8, f"has {name}, the expected output none")
        for name, pattern in (_MARKUP | _CASUAL).items()
        if pattern.search(answer) and not pattern.search(expected)
    ]
    if _TEMPLATE.search(answer) and not _TEMPLATE.search(expected):
        found.append((0.3, "leaves template tokens in the text"))
    if language(expected) and language(answer) and language(expected) != language(answer):
        found.append((0.3, f"answers in {language(answer)}"))
    if _capitalised(expected) and not _capitalised(answer):
        found.append((0.7, "does not begin with a capital"))
    return found


def language(text: str) -> str | None:
    counts = Counter(words(text))
    english, german = (sum(counts[word] for word in group) for group in (ENGLISH, GERMAN))
    if max(english, german) < 2 or english == german:
        return None
    return "English" if english > german else "German"


def _capitalised(text: str) -> bool:
    first = next((char for char in text if char.isalnum()), "")
    return first.isupper() or first.isdigit()


def coherent_form(expected: str, answer: str, circling: float) -> tuple[float, str]:
    """Part in [0, 1] and reason: does not turn in circles, ends its last sentence."""
    part, notes = 1 - circling, [f"repeats {_repetition(answer):.0%} of its phrases" if circling else "no repetition"]
    if not _finished(answer) and _finished(expected):
        part *= 0.75
        notes.append("breaks off in a sentence")
    return part, "; ".join(notes)


def repetition(answer: str, expected: str) -> float:
    """How much the answer turns in circles, beyond the expected output: 0 not at all, 1 half of it or more."""
    return min(1.0, max(0.0, _repetition(answer) - min(_repetition(expected), 0.2)) / 0.5)


def _repetition(text: str) -> float:
    """Part of the text's three-word phrases and of its sentences that came before, whichever is more."""
    running = words(text)
    phrases = [tuple(running[i : i + 3]) for i in range(len(running) - 2)]
    texts = [" ".join(words(sentence)) for sentence in sentences(text)]
    return max(_again(phrases), _again(texts))


def _again(items: list[str] | list[tuple[str, ...]]) -> float:
    return 1 - len(set(items)) / len(items) if items else 0.0


def _finished(text: str) -> bool:
    return text.rstrip(" \n\"')]*”’»").endswith((".", "!", "?", "…", ":", "`"))
