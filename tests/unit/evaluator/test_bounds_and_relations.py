"""Bounds of quantities, the order and condition of events, and answers in which nothing but these was turned."""

from __future__ import annotations

import pytest

from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.bounds import bound_doubt
from services.evaluator.judging.decidability import settle
from services.evaluator.judging.relations import relation_doubt
from services.evaluator.judging.turned import turned


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Lorries up to 7 t pass, those above 7 t wait.", "Lorries above 7 t pass, those up to 7 t wait."),
        ("It costs between 5 and 10 euros.", "It costs between 10 and 5 euros."),
        ("At least two people.", "Up to two people."),
        ("It takes 5 days.", "It takes 5 days or more."),
        ("Die Mauer darf 2 m nicht überschreiten.", "Die Mauer darf 2 m nicht unterschreiten."),
        ("Binnen drei Tagen.", "Nach drei Tagen."),
        ("Die Gebühr beträgt mindestens 20 Euro.", "Die Gebühr beträgt 20 Euro, höchstens."),
    ],
)
def test_a_quantity_with_another_bound_is_a_doubt(expected, answer):
    assert bound_doubt(expected, answer, "")


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("No more than two weeks.", "At most 14 days."),
        ("It costs between 5 and 10 euros.", "It costs 5 to 10 euros."),
        ("Zwischen 3 und 5 Tagen.", "Mindestens 3 und höchstens 5 Tage."),
        ("Vehicles over 3 t, after 6 pm.", "Vehicles of more than 3 t, after 6 pm."),
        ("Die Mauer darf 2 m nicht überschreiten.", "Die Mauer darf nicht höher als 2 m sein."),
        ("Nach §60 ist es frei.", "Es ist gemäß §60 frei."),
        ("Bei höchstens 4 Grad bis zu 12 Stunden.", "Bis zu 12 Stunden bei höchstens 4 Grad."),
    ],
)
def test_the_same_bound_in_other_words_is_no_doubt(expected, answer):
    assert bound_doubt(expected, answer, "") == ""


def test_a_bound_that_the_question_has_already_may_be_left_out():
    assert bound_doubt("At most 5 days.", "5 days.", "How long?")
    assert bound_doubt("At most 5 days.", "5 days.", "How long at most?") == ""


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Call before it closes.", "Call once it closes."),
        ("Er zahlt, sobald er unterschreibt.", "Er zahlt, bevor er unterschreibt."),
        ("It rings until you answer.", "It rings if you answer."),
        ("Send it while the link is up.", "Send it until the link is up."),
        ("Lock it.", "Lock it before lunch."),
        ("Lock it before lunch.", "Lock it."),
        ("Open before noon, clean after noon.", "Open after noon, clean before noon."),
        ("Spätestens am Freitag.", "Frühestens am Freitag."),
    ],
)
def test_another_order_or_condition_is_a_doubt(expected, answer):
    assert relation_doubt(expected, answer, "")


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Call as soon as it closes.", "Call once it closes."),
        ("Er zahlt, wenn es regnet.", "Er zahlt, falls es regnet."),
        ("Call before it closes.", "Call prior to its closing."),
        ("It runs once a day.", "It runs daily."),
        ("Do it at once.", "Do it immediately."),
        ("Nach §60 ist es frei.", "Es ist gemäß §60 frei."),
    ],
)
def test_the_same_order_in_other_words_is_no_doubt(expected, answer):
    assert relation_doubt(expected, answer, "") == ""


def test_an_order_that_the_question_has_already_may_be_left_out():
    assert relation_doubt("Before noon, at the gate.", "At the gate.", "Where?")
    assert relation_doubt("Before noon, at the gate.", "At the gate.", "Where before noon?") == ""


@pytest.mark.requirement("LA-3.2")
@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("The customer is called before the ticket is closed.", "The customer is called once the ticket is closed.", False),
        ("Loads up to 5 kg go left, those above 5 kg go right.", "Loads above 5 kg go left, those up to 5 kg go right.", False),
        ("Der Hof ist täglich geöffnet.", "Der Hof ist täglich geschlossen.", False),
        ("The customer is called before the ticket is closed.", "A customer gets called once the ticket is closed.", None),
    ],
)  # fmt: skip
def test_an_answer_with_nothing_but_an_opposite_exchanged_is_wrong(expected, answer, right):
    found = settle(GoldenSample("s", "What happens?", expected), answer)
    assert found.right is right


def test_what_was_turned_is_named():
    assert turned("Ring before noon.", "Ring after noon.") == (
        "has `after` where `before` is expected, and the same words otherwise"
    )
    assert turned("Ring before noon.", "Ring before noon.") == ""
