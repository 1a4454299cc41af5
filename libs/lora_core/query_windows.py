"""The parts of a query that are compared with what an adapter is for: a question is found wherever it stands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

WHOLE = 250
"""Characters of a query that is taken as it is. What people ask alone is mostly shorter."""
ENDS = (0, 100, 300)
"""Characters of sentences at the end, and at the beginning, that are taken by themselves; one sentence at least."""
BODY, STEP, BODIES = 800, 600, 10
"""Characters of a window over all of the text, from one to the next, and how many there are at most."""
BEGINNING, WITHIN, EARLIER = 0.95, 0.9, 0.7
"""What a similarity counts: at the beginning, anywhere within, in each turn before; at the end all of it."""
TURNS = 3
"""Turns before the last one that count."""

_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?]+(?=\s)|\n|[.!?](?=\S))?\s*")


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a query. weight: what its similarity is multiplied with, more than 0 and at most 1."""

    text: str
    weight: float


def query_windows(query: str, earlier: Sequence[str] = ()) -> list[Window]:
    """The parts of a query, and of the turns before it, oldest first.

    The end of the query weighs most: what people paste comes first and their question last. Windows keep within what
    sentence models read (256 tokens for all-MiniLM-L6-v2, some 1,000 characters of English).
    """
    found = _of_text(query)
    for back, turn in enumerate(reversed(earlier[-TURNS:]), start=1):
        found += [Window(one.text, one.weight * EARLIER**back) for one in _of_text(turn)]
    heaviest: dict[str, float] = {}
    for one in found:
        heaviest[one.text] = max(one.weight, heaviest.get(one.text, 0.0))
    return [Window(text, weight) for text, weight in heaviest.items()]


def _of_text(text: str) -> list[Window]:
    text = text.strip()
    if len(text) <= WHOLE:
        return [Window(text, 1.0)] if text else []
    sentences = [found[0] for found in _SENTENCE.finditer(text) if found[0].strip()]
    windows = [Window(_last(sentences, most), 1.0) for most in ENDS]
    windows += [Window(_first(sentences, most), BEGINNING) for most in ENDS]
    begins = range(0, max(1, len(text) - (BODY - STEP)), STEP)
    # The first and the last ones of a text that has more.
    kept = [*begins] if len(begins) <= BODIES else [*begins[:2], *begins[len(begins) - (BODIES - 2) :]]
    return windows + [Window(text[begin : begin + BODY].strip(), WITHIN) for begin in kept]


def _first(sentences: Sequence[str], most: int) -> str:
    """As many sentences as have that many characters, at least one, which is cut."""
    taken = ""
    for sentence in sentences:
        if taken and len(taken) + len(sentence) > most:
            break
        taken += sentence
    return taken[: max(most, WHOLE)].strip()


def _last(sentences: Sequence[str], most: int) -> str:
    """As `_first`, from the end."""
    taken = ""
    for sentence in reversed(sentences):
        if taken and len(taken) + len(sentence) > most:
            break
        taken = sentence + taken
    return taken[-max(most, WHOLE) :].strip()
