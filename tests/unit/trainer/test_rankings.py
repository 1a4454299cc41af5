"""Rated answers become rankings."""

import pytest

from services.trainer.datasets.rankings import ranked
from services.trainer.datasets.records import Kind, Record, prompt_messages

pytestmark = pytest.mark.unit


def rated(prompt: str, completion: str, rating: float) -> Record:
    return Record(Kind.RATED, prompt_messages(prompt), (completion,), rating, split="validation")


@pytest.mark.requirement("TP-1.1")
def test_differently_rated_answers_to_a_prompt_are_a_ranking_best_first() -> None:
    given = [rated("p", "bad", 1), rated("p", "best", 5), rated("p", "good", 3.5), rated("p", "as bad", 1)]
    (found,) = ranked(given)
    assert (found.kind, found.prompt_text, found.split) == (Kind.RANKING, "p", "validation")
    assert found.completions[:2] == ("best", "good")
    assert len(found.completions) == 3
    assert ranked(given[::-1]) == [found]


def test_a_prompt_whose_answers_are_rated_alike_says_nothing_and_other_kinds_stay() -> None:
    pair = Record(Kind.PREFERENCE, prompt_messages("q"), ("chosen", "rejected"))
    assert ranked([rated("p", "a", 4), rated("p", "b", 4), pair, rated("alone", "c", 5)]) == [pair]
