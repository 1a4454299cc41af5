"""Small words and places: what turns a statement although its content words stay, and what leaves it as it is."""

from __future__ import annotations

import pytest

from services.evaluator.judging.particles import particle_doubt
from services.evaluator.judging.places import is_known, place_doubt


@pytest.mark.parametrize(
    ("expected", "answer", "doubt"),
    [
        ("Only members vote.", "Members vote.", "lacks `only` of 'memb' of the expected output"),
        ("Members vote.", "Only members vote.", "has `only` of 'memb', and the expected output does not"),
        ("Nur Mitglieder wählen.", "Nicht nur Mitglieder wählen.", "has `not only` of 'mitglied'"),
        ("Members only vote.", "Only members vote.", "has `only` of 'memb'"),
        ("Members vote.", "Most members vote.", "has `in part` of 'memb'"),
        ("It runs every night.", "It runs every other night.", "has `in part` of 'night'"),
        ("Pay cash or by card.", "Pay cash and by card.", "lacks `or`"),
        ("It is closed unless it rains.", "It is closed if it rains.", "lacks `except`"),
        ("Er kommt, wenn es regnet.", "Er kommt, obwohl es regnet.", "has `although`"),
        ("Tenants must move.", "Tenants may move.", "has `may` where `must` is expected"),
        ("Ships sail from Oslo.", "Ships sail to Oslo.", "has `to` before 'oslo' where `from` is expected"),
    ],
)
def test_a_small_word_that_turns_the_statement_is_a_doubt(expected, answer, doubt):
    assert particle_doubt(expected, answer).startswith(doubt)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Nur Mitglieder wählen.", "Ausschließlich Mitglieder wählen."),
        ("The vault may be opened only by the keeper.", "Only the keeper may open the vault."),
        ("It is closed unless it rains.", "Unless it rains, it is closed."),
        ("Der Antrag wird bezahlt.", "Der Antrag muss bezahlt werden."),
        ("Ships sail from Oslo to Kiel.", "To Kiel ships sail from Oslo."),
    ],
)
def test_the_same_small_words_elsewhere_are_no_doubt(expected, answer):
    assert particle_doubt(expected, answer) == ""


def places(expected: str, answer: str) -> str:
    return place_doubt(expected, answer, set(), set())


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Parents pay half, clubs pay nothing.", "Clubs pay half, parents pay nothing."),
        ("The cook rests, the baker bakes every week.", "The cook rests every week, the baker bakes."),
        ("Bread is due within ten days at the mill, milk at the farm.", "Bread is due at the mill, milk within ten days at the farm."),
        ("The early shift loads the truck.", "The truck loads the early shift."),
        ("Die Prüfung liegt vor der Abnahme.", "Die Abnahme liegt vor der Prüfung."),
    ],
)  # fmt: skip
def test_words_that_changed_places_are_a_doubt(expected, answer):
    assert places(expected, answer)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("The cook cleans the oven every week.", "Every week the cook cleans the oven."),
        ("Die Karte wird zum Jahresende gekündigt.", "Zum Jahresende wird die Karte gekündigt."),
        ("The host pays if the hall is full.", "If the hall is full, the host pays."),
        ("Die Steuer ist bis zum 15. Februar zu zahlen.", "Bis zum 15. Februar ist die Steuer zu zahlen."),
    ],
)
def test_a_prepositional_phrase_or_a_clause_may_stand_first(expected, answer):
    assert places(expected, answer) == ""


def test_inflections_are_known_and_other_compounds_are_not():
    assert is_known("certificat", {"certif"})
    assert is_known("verlängerung", {"verlänger"})
    assert not is_known("winterbeginn", {"winterend"})
    assert not is_known("baugenehmigungsbehörd", {"baugenehmigung"})
