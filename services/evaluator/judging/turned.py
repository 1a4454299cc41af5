"""An answer that is the expected output word for word, with nothing but opposites exchanged: it is wrong. Pure.

`up to 11 kW ..., above 11 kW ...` with the two bounds exchanged, `once` for `before`, `closed` for `open`. Where any
other word differs, nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.evaluator.judging.bounds import BOUNDS, Bound, BoundedClause, bounded
from services.evaluator.judging.fact_overlap import stem
from services.evaluator.judging.quantities import place_of_mark
from services.evaluator.judging.relations import Relation, related
from services.evaluator.judging.vocabulary import ARTICLES, OPPOSITES

_BEFORE = frozenset({Relation.BEFORE, Relation.UNTIL})
_AFTER = frozenset({Relation.AFTER, Relation.SINCE})
_SIDES = [tuple(frozenset(stem(word) for word in side) for side in pair) for pair in OPPOSITES]


def turned(expected: str, answer: str) -> str:
    """What was exchanged for its opposite, where that is all that differs; else empty."""
    wanted, given = list(_comparable(expected)), list(_comparable(answer))
    if len(wanted) != len(given):
        return ""
    differing = [(one, other) for one, other in zip(wanted, given, strict=True) if one != other]
    if not differing or not all(_opposite(one, other) for one, other in differing):
        return ""
    one, other = differing[0]
    return f"has `{_shown(other)}` where `{_shown(one)}` is expected, and the same words otherwise"


def _comparable(text: str) -> Iterator[object]:
    """Bounds, relations, quantities and stemmed words in their order, without articles."""
    for clause in bounded(text):
        kinds = {place: (size, kind) for place, size, kind in related(clause.tokens)}
        place = 0
        while place < len(clause.tokens):
            size, kind = kinds.get(place, (1, None))
            token = clause.tokens[place]
            if kind is not None:
                yield kind
            elif token not in ARTICLES:
                yield _term(token, clause)
            place += size


def _term(token: str, clause: BoundedClause) -> object:
    if token in BOUNDS:
        return Bound(token)
    place = place_of_mark(token)
    return stem(token) if place is None else clause.quantities[place]


def _opposite(one: object, other: object) -> bool:
    if isinstance(one, Bound) and isinstance(other, Bound):
        return one is not other
    if isinstance(one, Relation) and isinstance(other, Relation):
        return (one in _BEFORE and other in _AFTER) or (one in _AFTER and other in _BEFORE)
    return any((one in a and other in b) or (one in b and other in a) for a, b in _SIDES)


def _shown(term: object) -> str:
    return term.shown if isinstance(term, Bound) else str(term)
