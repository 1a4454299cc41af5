"""Whether the reference judge can decide an answer at all, and which way. Pure, lexical, and shy: it abstains on doubt.

Some answers fail before any comparison: keyword lists, echoes, loops. Others are settled by the sample's rules and by
what can be compared exactly: quantities, names and negations. Everything else (another wording, another order, a word
that may turn the meaning round) is undecided. Precision and recall, measured on answers that no constant here was
chosen on, are in docs/judging.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from services.evaluator.judging.bounds import bound_doubt
from services.evaluator.judging.criteria import Criterion, broken_musts, is_must
from services.evaluator.judging.fact_overlap import (
    STOP_STEMS,
    compare,
    is_number,
    names,
    negations,
    stem,
    terms,
)
from services.evaluator.judging.json_schema import JsonSchema
from services.evaluator.judging.particles import particle_doubt
from services.evaluator.judging.places import content, is_known, place_doubt
from services.evaluator.judging.quantities import Quantity, quantities, same_quantity
from services.evaluator.judging.relations import relation_doubt
from services.evaluator.judging.rules import Exact, Rule
from services.evaluator.judging.style_features import language, repetition
from services.evaluator.judging.text import fold, words
from services.evaluator.judging.turned import turned
from services.evaluator.judging.vocabulary import GRAMMAR, OPPOSITES

LOOP = 0.6
"""Of `style_features.repetition`: that much of an answer in circles is no answer."""
RECALL_WITH_RULES, RECALL_WITHOUT = 0.45, 0.8
"""Weighted share of the expected content that the answer keeps."""


class Sample(Protocol):
    """The parts of a golden sample that settle an answer."""

    @property
    def prompt(self) -> str: ...
    @property
    def expected_output(self) -> str: ...
    @property
    def rules(self) -> Mapping[Criterion, Sequence[Rule]]: ...


@dataclass(frozen=True)
class Settled:
    """right is None where nothing settles the answer; `why` gives the reason in any case."""

    right: bool | None
    why: str


def settle(sample: Sample, answer: str, tested: bool | None = None) -> Settled:  # noqa: PLR0911 - first row that fits
    """What the rules and facts of the sample make of the answer. `tested`: whether its tests passed, if it has any."""
    if not words(answer):
        return Settled(False, "the answer is empty")
    if fold(answer) == fold(sample.expected_output) and tested is not False:
        return Settled(True, "it is the expected output")
    if broken := broken_musts(sample.rules, answer):
        return Settled(False, f"breaks {'; '.join(text for of_it in broken.values() for text in of_it)}")
    if tested is not None:
        return Settled(tested, "the tests pass" if tested else "the tests fail")
    if any(isinstance(rule, Exact) for rule in sample.rules.get(Criterion.ACCURACY, ())):
        return Settled(True, "it is one of the exact answers")
    if fault := no_answer(sample, answer):
        return Settled(False, fault)
    if wrong := _wrong_quantity(sample, answer) or turned(sample.expected_output, answer):
        return Settled(False, wrong)
    if doubt := _doubt(sample, answer):
        return Settled(None, doubt)
    return Settled(True, "rules, quantities, names and negations agree with the expected output")


def no_answer(sample: Sample, answer: str) -> str:
    """Why the answer is none, with any words: an echo, a loop or a list of keywords; else empty."""
    if (
        set(terms(answer)) <= set(terms(sample.prompt))
        and not compare(sample.expected_output, sample.prompt, answer).adds
    ):
        return "only repeats the prompt"
    if repetition(answer, sample.expected_output) >= LOOP:
        return "turns in circles"
    if _is_keyword_list(answer) and not _is_keyword_list(sample.expected_output):
        return "lists keywords without a statement"
    return ""


def _is_keyword_list(text: str) -> bool:
    """Many short fragments, or many words, hardly held together by grammar (articles, verbs of being, pronouns)."""
    tokens = words(text)
    if len(tokens) < 5:
        return False
    grammar = sum(word in GRAMMAR for word in tokens) / len(tokens)
    stops = sum(word in STOP_STEMS for word in tokens) / len(tokens)
    fragments = [part for part in re.split(r"[,;:|/•\n]+|\s-\s|[.!?](?:\s|$)|->|→|\+", text) if words(part)]
    size = len(tokens) / len(fragments)
    listed = (len(fragments) >= 3 and size <= 3.5 and grammar < 0.1) or (
        len(fragments) >= 4 and size <= 2 and grammar < 0.2
    )
    return listed or (len(tokens) >= 7 and stops < 0.1)


def _wrong_quantity(sample: Sample, answer: str) -> str:
    """Where a kind of quantity (a time, a sum of euros, a paragraph) has other values and none of the expected ones."""
    wanted, answered = quantities(sample.expected_output), quantities(answer)
    prompted = {quantity.value for quantity in quantities(sample.prompt)}
    for dimension in dict.fromkeys(q.dimension for q in wanted if q.dimension not in {"", "text"}):
        expected = {q.value for q in wanted if q.dimension == dimension} - prompted
        given = {q.value for q in answered if q.dimension == dimension} - prompted
        if expected and given and not expected & given and not expected & {q.value for q in answered}:
            return f"{_written(given)} {dimension} instead of {_written(expected)}"
    return ""


def _written(values: Iterable[Decimal | str]) -> str:
    return "/".join(sorted(map(str, values)))


def _doubt(sample: Sample, answer: str) -> str:
    """Why the answer may be wrong although no rule is broken; empty where nothing speaks against it."""
    # A schema vouches for the form, not for its content.
    of_accuracy = sample.rules.get(Criterion.ACCURACY, ())
    musts = any(is_must(rule) and not isinstance(rule, JsonSchema) for rule in of_accuracy)
    kept = compare(sample.expected_output, sample.prompt, answer)
    return (
        _doubt_of_quantities(sample, answer)
        or _doubt_of_names(sample, answer)
        or _doubt_of_polarity(sample, answer)
        or "; ".join((*kept.exchanged, *kept.reversed))
        or bound_doubt(sample.expected_output, answer, sample.prompt)
        or relation_doubt(sample.expected_output, answer, sample.prompt)
        or particle_doubt(sample.expected_output, answer)
        or place_doubt(sample.expected_output, answer, set(terms(sample.prompt)), _in_rules(sample))
        or _doubt_of_words(sample, answer, kept.recall, with_rules=musts)
    )


def _doubt_of_quantities(sample: Sample, answer: str) -> str:
    prompted = quantities(sample.prompt)
    wanted, answered = quantities(sample.expected_output), quantities(answer)
    missing = [q for q in wanted if not _among(q, answered) and not _among(q, prompted)]
    foreign = [q for q in answered if not _among(q, wanted) and not _among(q, prompted)]
    if missing:
        return f"lacks the quantity {missing[0].written}"
    if foreign:
        return f"has the quantity {foreign[0].written}, which is nowhere expected"
    order = [q for q in dict.fromkeys(wanted) if q in answered]
    if order != [q for q in dict.fromkeys(answered) if q in order]:
        return "has the quantities in another order, so they may have changed places"
    return ""


def _among(quantity: Quantity, others: Sequence[Quantity]) -> bool:
    return any(same_quantity(quantity, other) for other in others)


def _doubt_of_names(sample: Sample, answer: str) -> str:
    expected, prompted, answered = _names(sample.expected_output), set(terms(sample.prompt)), terms(answer)
    if missing := sorted(expected - set(answered) - prompted):
        return f"lacks {missing[0]!r}"
    if foreign := sorted(_names(answer) - set(terms(sample.expected_output)) - prompted - _in_rules(sample)):
        return f"names {foreign[0]!r}, which is nowhere expected"
    order = [term for term in dict.fromkeys(terms(sample.expected_output)) if term in expected and term in answered]
    if order != [term for term in dict.fromkeys(answered) if term in order]:
        return "has the names in another order, so they may have changed places"
    return ""


def _names(text: str) -> set[str]:
    """Names and codes, without numbers. German nouns all have capitals, so there codes alone are names."""
    found = {term for term in names(text) if not is_number(term)}
    return {term for term in found if not term.isalpha()} if language(text) == "German" else found


def _doubt_of_polarity(sample: Sample, answer: str) -> str:
    if negations(answer) != negations(sample.expected_output):
        return "negates more or less often than the expected output"
    wanted, answered = ([stem(word) for word in words(text)] for text in (sample.expected_output, answer))
    known = {stem(word) for word in words(sample.prompt)} | _in_rules(sample)
    for one, other in _OPPOSITES:
        sides = [[term in one for term in text if term in one or term in other] for text in (wanted, answered)]
        # What the expected output takes no side in, the answer may not take one in either: `free`, where nothing costs.
        if not sides[0] and (taken := [term for term in answered if term in one | other and term not in known]):
            return f"has {taken[0]!r}, and the expected output neither it nor its opposite"
        if all(sides) and _runs(sides[0]) != _runs(sides[1]):
            differing = sorted({term for term in answered if term in one or term in other})
            return f"has {'/'.join(differing)} otherwise than the expected output"
    return ""


_OPPOSITES = [tuple({stem(word) for word in side} for side in pair) for pair in OPPOSITES]


def _runs(items: Sequence[bool]) -> list[bool]:
    """Without immediate repetitions."""
    return [item for place, item in enumerate(items) if place == 0 or item != items[place - 1]]


def _doubt_of_words(sample: Sample, answer: str, recall: float, *, with_rules: bool) -> str:
    known = set(terms(sample.expected_output)) | set(terms(sample.prompt)) | _in_rules(sample)
    foreign = [term for term in content(answer) if not is_known(term, known)]
    if foreign:
        return f"has {', '.join(foreign[:5])}, which neither sample nor rules know"
    if recall < (RECALL_WITH_RULES if with_rules else RECALL_WITHOUT):
        return f"keeps {recall:.0%} of the expected content, too little to tell"
    return ""


def _in_rules(sample: Sample) -> set[str]:
    """Words of the rules: alternatives that their owner lets stand for the expected output's."""
    return {term for rules in sample.rules.values() for rule in rules for term in terms(rule.text)}
