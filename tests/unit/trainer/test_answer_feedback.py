"""What follows from feedback on an answer."""

import hashlib
from datetime import UTC, datetime
from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events import v1
from services.trainer.datasets.answers.answer import RecordedAnswer, feedback_of
from services.trainer.datasets.answers.derivation import opinion, preference, prompt_of, ranking, total_order
from services.trainer.datasets.dataset import InvalidSample, Sample

NOW = datetime(2026, 12, 1, tzinfo=UTC)
TURNS = (("system", "Be brief."), ("user", "Gate?"), ("assistant", "Which?"), ("user", "The north one."))


def answer(name: str, text: str, turns: tuple[tuple[str, str], ...] = TURNS) -> RecordedAnswer:
    return RecordedAnswer(name, "gate", turns, text, "gate-lora-v1.0.0", {}, (), "", "", "", 1, NOW)


def test_a_correction_is_a_sample_and_preferred_over_the_answer() -> None:
    found = opinion(answer("g", "Opens at noon."), "ann", 2.0, "Opens at dusk.")
    rated, corrected = found.samples
    assert (rated.completion, rated.rating, rated.source_id) == ("Opens at noon.", 2.0, "g")
    assert (corrected.completion, corrected.rating) == ("Opens at dusk.", None)
    assert (rated.prompt, rated.context) == ("The north one.", TURNS[:-1])
    [pair] = found.preferences
    assert (pair.chosen, pair.rejected, pair.context) == ("Opens at dusk.", "Opens at noon.", TURNS[:-1])


def test_what_precedes_a_question_makes_another_sample_of_it_and_none_leaves_the_id_as_it_was() -> None:
    alone = Sample("gate", "The north one.", "x")
    content = '{"completion":"x","domain":"gate","prompt":"The north one."}'
    assert alone.sample_id == hashlib.sha256(content.encode()).hexdigest()
    assert Sample("gate", "The north one.", "x", context=TURNS[:-1]).sample_id != alone.sample_id


@pytest.mark.parametrize(
    ("turns", "correction"),
    [
        ((("user", "Gate?"), ("assistant", "Wh")), "x"),
        ((("tool", "4"), ("user", "Gate?")), "x"),
        ((("user", " "),), "x"),
        (TURNS, "the same"),
        (TURNS, " "),
        ((), "x"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(turns: tuple[tuple[str, str], ...], correction: str) -> None:
    with pytest.raises(InvalidSample):
        opinion(answer("g", "the same", turns), "ann", None, correction)


def test_answers_to_different_conversations_are_not_compared() -> None:
    with pytest.raises(InvalidSample, match="another conversation"):
        preference(answer("a", "x"), answer("b", "y", TURNS[-1:]), "ann")


@given(st.integers(2, 6).flatmap(lambda count: st.permutations(range(count))))
def test_neighbours_of_an_order_give_it_back(order: list[int]) -> None:
    names = tuple(str(one) for one in order)
    assert total_order(list(pairwise(names))) == names
    assert total_order(list(combinations(names, 2))) == names


@pytest.mark.parametrize(
    "pairs",
    [
        [("a", "b"), ("a", "c")],
        [("a", "c"), ("b", "c")],
        [("a", "b"), ("b", "a")],
        [("a", "b"), ("b", "c"), ("c", "a")],
        [("a", "b"), ("c", "d")],
        [],
    ],
)
def test_pairs_that_leave_two_in_doubt_or_contradict_give_no_order(pairs: list[tuple[str, str]]) -> None:
    assert all(total_order(list(one)) == () for one in permutations(pairs))


def test_a_ranking_takes_three_different_answers() -> None:
    answers = {name: answer(name, text) for name, text in (("a", "1"), ("b", "2"), ("c", "3"), ("d", "1"))}
    found = ranking(answers, [("a", "b"), ("b", "c")], "ann")
    assert found is not None
    assert (found.completions, found.generation_ids) == (("1", "2", "3"), ("a", "b", "c"))
    assert ranking(answers, [("a", "b")], "ann") is None
    assert ranking(answers, [("a", "b"), ("b", "d")], "ann") is None


def test_who_rates_is_the_subject_where_the_application_names_one() -> None:
    event = v1.FeedbackRecorded(generation_id="g", rating=3, by="app", subject="ann", preferred_over="h")
    rated, preferred = feedback_of(event, "s", 1, NOW)
    assert (rated.rater, rated.rating, rated.preferred_over) == ("ann", 3, "")
    assert (preferred.rating, preferred.preferred_over) == (None, "h")
    [alone] = feedback_of(event.model_copy(update={"subject": "", "preferred_over": ""}), "s", 1, NOW)
    assert alone.rater == "app"
    assert feedback_of(event.model_copy(update={"rating": 0, "preferred_over": ""}), "s", 1, NOW) == []


def test_blank_turns_before_the_question_are_left_out() -> None:
    assert prompt_of((("system", ""), ("user", "Gate?"))) == ((), "Gate?")
