"""How well quantities, names and negations are found in sentences that were labelled before the code had seen them.

The words were chosen on `extraction_tuning.json`; `extraction_held_out.json` was written after that and changed nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from services.evaluator.judging.decidability import _names as names
from services.evaluator.judging.fact_overlap import clauses, negations, terms
from services.evaluator.judging.quantities import quantities
from services.evaluator.judging.text import words

HERE = Path(__file__).parent
DOCS = Path(__file__).parents[3] / "docs" / "judging.md"
HELD_OUT = "extraction_held_out.json"


def sentences(name: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads((HERE / name).read_text())
    return found


SENTENCES = sentences(HELD_OUT)


def _written(value: Decimal | str) -> str:
    return format(value, "f") if isinstance(value, Decimal) else value


def _found_quantities(text: str) -> Iterable[object]:
    return [(_written(one.value), one.dimension) for one in quantities(text)]


def _found_negated(text: str) -> Iterable[object]:
    return [" ".join(words(clause)) for clause in clauses(text) if negations(clause)]


KINDS: dict[str, tuple[Callable[[str], Iterable[object]], Callable[[dict[str, Any]], Iterable[object]]]] = {
    "quantities with their units, in digits or words": (
        _found_quantities,
        lambda one: [(value, dimension) for value, dimension in one["quantities"]],
    ),
    "names and codes": (names, lambda one: {term for name in one["names"] for term in terms(name)}),
    "clauses that negate": (_found_negated, lambda one: [" ".join(words(clause)) for clause in one["negated"]]),
}


def measured(kind: str, language: str, name: str = HELD_OUT) -> tuple[int, int, int]:
    """Right ones among those found, all found, all there are."""
    find, label = KINDS[kind]
    right = found = wanted = 0
    for one in sentences(name)[language]:
        mine, theirs = Counter(find(one["text"])), Counter(label(one))
        right += (mine & theirs).total()
        found += mine.total()
        wanted += theirs.total()
    return right, found, wanted


@pytest.mark.requirement("LA-3.2")
@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_in_held_out_sentences_is_as_the_documentation_has_it(kind: str, language: str) -> None:
    right, found, wanted = measured(kind, language)
    assert f"| {kind} | {language} | {right} of {found} | {right} of {wanted} |" in DOCS.read_text()
    assert right / found >= 0.8
    assert right / wanted >= 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_found_in_the_sentences_on_which_the_words_were_chosen(kind: str) -> None:
    for language in SENTENCES:
        right, found, wanted = measured(kind, language, "extraction_tuning.json")
        assert right == found == wanted
