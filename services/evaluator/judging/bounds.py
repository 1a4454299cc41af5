"""Bounds of a text: which number is a least and which a most, in any wording, and where the two changed places. Pure.

English and German. A bound is a phrase (`no more than`, `bis zu`, `or less`) that belongs to a quantity, or to none
(`at the latest on Friday`). `between 5 and 10`, `von 5 bis 10` and `5-10` bound 5 from below and 10 from above.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from services.evaluator.judging.fact_overlap import clauses
from services.evaluator.judging.quantities import Quantity, marked, place_of_mark, same_quantity
from services.evaluator.judging.text import words


class Bound(StrEnum):
    """From which side a phrase bounds. Members are the words that stand for it in a rewritten text."""

    LOWER = "lowerbound"
    UPPER = "upperbound"

    @property
    def shown(self) -> str:
        return "at least" if self is Bound.LOWER else "at most"


BOUNDS = frozenset(Bound)


def _either(phrases: str) -> str:
    """An expression for any of the phrases, which commas and lines separate."""
    parts = [phrase.strip() for line in phrases.splitlines() for phrase in line.split(",")]
    return "(?:" + "|".join(part for part in parts if part) + ")"


_MORE = _either("more, later, longer, higher, greater, larger, over, above, mehr, später, länger, höher, größer")
_LESS = _either(
    "less, fewer, earlier, sooner, shorter, lower, smaller, under, below, weniger, früher, kürzer, niedriger, kleiner"
)
_THAN = r"\s+(?:than|als)\b"
_NOT = r"\b(?:no|not|never|nicht)\s+(?:to\s+)?"
_OR, _END = r"\b(?:or|oder|and|und)\s+", r"\b(?!\s*(?:than|als)\b)"
_LEAST = _either(
    r"""at (?:the )?(?:very )?least, at the earliest, (?:a |the |ein )?minimum(?: of| von)?, min\.?, mindestens,
    wenigstens, zumindest, frühestens, upwards of, starting (?:at|from), exceed(?:s|ing)?, überschreite[nt],
    übersteig(?:en|t)"""
)
_MOST = _either(
    r"""at (?:the )?(?:very )?most, at the latest, (?:a |the |ein )?maximum(?: of| von)?, max\.?, höchstens, maximal,
    längstens, spätestens, up to, bis zu, unterschreite[nt]"""
)
_LIMIT = r"quantity\d+"
_ARTICLES = _either(
    "the, a, an, about, of, zu, zum, zur, der, dem, den, die, das, einem, einer, einen, ca, etwa, jeweils, als, than"
)
_BEFORE_LIMIT = rf"(?=(?:\s+(?:a|an|the|einem|einer)\s+\w+\s+(?:of|von))?(?:\s+{_ARTICLES})*\s+{_LIMIT})"
_FROM = _either("over, above, über, oberhalb, ab, after, nach, since, seit") + r"\b"
_UNTIL = _either("under, below, unter, unterhalb, until, till, bis, before, vor, within, innerhalb, binnen") + r"\b"
_SPELLED = [
    (re.compile(pattern), f" {bound} ")
    for pattern, bound in (
        (rf"{_NOT}{_MORE}(?:{_THAN})?\b", Bound.UPPER),
        (rf"{_NOT}{_LESS}(?:{_THAN})?\b", Bound.LOWER),
        (rf"{_NOT}(?:exceed(?:ing)?|überschreiten|übersteigen|über)\b", Bound.UPPER),
        (rf"{_NOT}(?:fall below|unterschreiten|unter)\b", Bound.LOWER),
        (rf"{_OR}(?:{_MORE}|darüber){_END}", Bound.LOWER),
        (rf"{_OR}(?:{_LESS}|darunter){_END}", Bound.UPPER),
        (rf"\b{_MORE}{_THAN}", Bound.LOWER),
        (rf"\b{_LESS}{_THAN}", Bound.UPPER),
        (rf"\b{_LEAST}(?!\w)", Bound.LOWER),
        (rf"\b{_MOST}(?!\w)", Bound.UPPER),
        (rf"\b{_FROM}{_BEFORE_LIMIT}", Bound.LOWER),
        (rf"\b{_UNTIL}{_BEFORE_LIMIT}", Bound.UPPER),
        *((rf"\b(?:{bound}\s+)+{bound}\b", bound) for bound in Bound),
    )
]
"""Phrases in this order, since the longer ones contain the shorter."""
_RANGE = re.compile(
    rf"\b(?:between|zwischen)\s+({_LIMIT})\s+(?:and|und)\s+({_LIMIT})"
    rf"|(?:\b(?:from|von)\s+)?({_LIMIT})\s+(?:to|until|bis|-)\s+({_LIMIT})"
)
_NEAR = 4
"""Words between a bound and the quantity that it belongs to, at most."""


@dataclass(frozen=True)
class BoundedClause:
    """A clause with each bound as one word (`Bound`) and each quantity as its mark."""

    tokens: tuple[str, ...]
    quantities: tuple[Quantity, ...]

    @property
    def bounds(self) -> list[tuple[Bound, Quantity | None]]:
        """In the clause's order, each with the quantity that it belongs to: the next one, else the one before."""
        found: list[tuple[Bound, Quantity | None]] = []
        for place, token in enumerate(self.tokens):
            if token in BOUNDS:
                behind = self._first(self.tokens[place + 1 : place + 2 + _NEAR])
                before = self._first(self.tokens[max(0, place - _NEAR - 1) : place][::-1])
                found.append((Bound(token), behind or before))
        return found

    def _first(self, tokens: Sequence[str]) -> Quantity | None:
        for token in tokens:
            if token in BOUNDS:
                return None
            if (place := place_of_mark(token)) is not None:
                return self.quantities[place]
        return None


def bounded(text: str) -> list[BoundedClause]:
    """The text's clauses. Numbers of paragraphs are bounded by nothing (`nach §60`)."""
    found = []
    for clause in clauses(text):
        spelled, amounts = marked(clause)
        spelled = _RANGE.sub(partial(_range, amounts), spelled)
        for pattern, bound in _SPELLED:
            spelled = pattern.sub(bound, spelled)
        found.append(BoundedClause(tuple(words(spelled)), amounts))
    return found


def _range(amounts: Sequence[Quantity], found: re.Match[str]) -> str:
    """A range, unless its ends are of two kinds: `at 4 degrees until 12 o'clock`."""
    low, high = (mark for mark in found.groups() if mark is not None)
    start, end = (amounts[place_of_mark(mark) or 0] for mark in (low, high))
    if start.dimension not in {"", end.dimension}:
        return found.group()
    return f"{Bound.LOWER} {low} {Bound.UPPER} {high}"


def bound_doubt(expected: str, answer: str, prompt: str) -> str:
    """Where a quantity of the answer has other bounds than in the expected output, or has them in another order.

    A bound that the answer leaves out is no doubt where the prompt has one of its side: `How long at most?`.
    """
    wanted, given = _by_quantity(expected), _by_quantity(answer)
    in_prompt = {bound for bounds in _by_quantity(prompt).values() for bound in bounds} | _unattached(prompt)
    for quantity, bounds in given.items():
        counterpart = next((other for other in wanted if same_quantity(quantity, other)), None)
        due = wanted[counterpart] if counterpart is not None else []
        if bounds != due:
            return f"bounds {quantity.written} by {_shown(bounds)} where {_shown(due)} is expected"
    for quantity, due in wanted.items():
        if not any(same_quantity(quantity, other) for other in given) and not set(due) <= in_prompt:
            return f"has {quantity.written} without the {_shown(due)} of the expected output"
    return ""


def _by_quantity(text: str) -> dict[Quantity, list[Bound]]:
    found: dict[Quantity, list[Bound]] = {}
    for clause in bounded(text):
        for bound, quantity in clause.bounds:
            if quantity is not None:
                key = next((other for other in found if same_quantity(quantity, other)), quantity)
                if found.setdefault(key, [])[-1:] != [bound]:
                    found[key].append(bound)
    return found


def _unattached(text: str) -> set[Bound]:
    return {bound for clause in bounded(text) for bound, quantity in clause.bounds if quantity is None}


def _shown(bounds: Sequence[Bound]) -> str:
    return "`" + ", ".join(bound.shown for bound in bounds) + "`" if bounds else "no bound"
