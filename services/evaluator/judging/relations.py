"""What order and what condition a text sets: `before`, `once`, `until`, `if`, in any wording. Pure; English and German.

Words that bound a quantity (`after 10 days`) are bounds.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum

from services.evaluator.judging.bounds import BOUNDS, Bound, bounded
from services.evaluator.judging.vocabulary import RELATIONS


class Relation(StrEnum):
    """How two events of a text stand to each other."""

    BEFORE = "before"
    UNTIL = "until"
    AFTER = "after"
    SINCE = "since"
    DURING = "during"
    IF = "if"
    WHEN = "when"
    """Leaves open which; `wenn` is both `when` and `if`."""


_OF_WORD = {word: Relation(kind) for kind, members in RELATIONS.items() for word in members}
_OF_BOUND = {Bound.UPPER: Relation.UNTIL, Bound.LOWER: Relation.SINCE}
_PHRASES: tuple[tuple[tuple[str, ...], Relation | None], ...] = (
    (("as", "soon", "as"), Relation.AFTER),
    (("as", "long", "as"), Relation.DURING),
    (("prior", "to"), Relation.BEFORE),
    (("ahead", "of"), Relation.BEFORE),
    (("in", "case"), Relation.IF),
    (("im", "fall"), Relation.IF),
    (("at", "once"), None),
    (("all", "at", "once"), None),
    (("after", "all"), None),
    (("vor", "allem"), None),
    (("nach", "wie", "vor"), None),
    (("nach", "und", "nach"), None),
)
_OFTEN = frozenset({"a", "an", "per", "every", "each", "in", "daily", "weekly", "monthly", "yearly", "more", "again"})
"""Behind `once`: then it is how often, and no order."""
_ALIKE = (
    frozenset({Relation.BEFORE, Relation.UNTIL}),
    frozenset({Relation.AFTER, Relation.SINCE}),
    *(frozenset({Relation.WHEN, other}) for other in (Relation.AFTER, Relation.DURING, Relation.IF)),
)
_ORDERING = frozenset({Relation.BEFORE, Relation.UNTIL, Relation.AFTER, Relation.SINCE})
_BACKWARD = frozenset({Relation.BEFORE, Relation.UNTIL})


def related(tokens: Sequence[str]) -> Iterator[tuple[int, int, Relation]]:
    """Place, number of words and kind of each relation in a clause's words."""
    place = 0
    while place < len(tokens):
        size, kind = _at(tokens, place)
        if kind is not None:
            yield place, size, kind
        place += size


def _at(tokens: Sequence[str], place: int) -> tuple[int, Relation | None]:
    for phrase, kind in _PHRASES:
        if tuple(tokens[place : place + len(phrase)]) == phrase:
            return len(phrase), kind
    word = tokens[place]
    behind = tokens[place + 1] if place + 1 < len(tokens) else ""
    if word == "once" and (not behind or behind in _OFTEN):
        return 1, None
    if word == "nach" and behind.startswith("§"):
        return 1, None
    return 1, _OF_WORD.get(word)


def relations(text: str) -> list[Relation]:
    """The text's relations, clause by clause; a bound of no quantity is one too (`spätestens am Freitag`)."""
    found: list[Relation] = []
    for clause in bounded(text):
        alone = [bound for bound, quantity in clause.bounds if quantity is None]
        found += [kind for _, _, kind in related([t for t in clause.tokens if t not in BOUNDS])]
        found += [_OF_BOUND[bound] for bound in alone]
    return found


def relation_doubt(expected: str, answer: str, prompt: str) -> str:
    """Where the answer sets another order or condition than the expected output; empty where they agree.

    An order that the answer leaves out is no doubt where the prompt has one of its side: `What comes before ...?`.
    """
    wanted, given = relations(expected), relations(answer)
    lost, added = Counter(wanted) - Counter(given), Counter(given) - Counter(wanted)
    for kind in list(added.elements()):
        counterpart = next((other for other in lost if lost[other] > 0 and _alike(kind, other)), None)
        if counterpart is not None:
            lost[counterpart] -= 1
            added[kind] -= 1
    lost, added = +lost, +added
    for kind in added:
        other = next((one for one in lost if Relation.WHEN not in {one, kind} or _ORDERING & {one, kind}), None)
        if other is not None:
            return f"has `{kind}` where `{other}` is expected"
        if kind in _ORDERING:
            return f"has `{kind}`, and the expected output does not"
    asked = relations(prompt)
    for kind in lost:
        if kind in _ORDERING and not any(kind is one or _alike(kind, one) for one in asked):
            return f"lacks `{kind}` of the expected output"
    sides = _sides(wanted), _sides(given)
    if len(sides[0]) == len(sides[1]) and sides[0] != sides[1]:
        return "sets before and after in another order"
    return ""


def _alike(one: Relation, other: Relation) -> bool:
    return any({one, other} <= both for both in _ALIKE)


def _sides(found: Sequence[Relation]) -> list[bool]:
    return [kind in _BACKWARD for kind in found if kind in _ORDERING]
