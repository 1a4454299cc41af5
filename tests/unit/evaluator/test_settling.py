"""What the reference judge decides and what not, on labelled sets.

The constants and word lists were chosen on `settling_tuning.json`. The other sets were each written before the code had
seen them, and nothing was chosen on them; but faults that one showed led to further reasons to abstain: those of
`settling_held_out.json` to the ones on places and sides, those of `settling_second.json` to the one on unknown words,
the two of `settling_third.json` to those on small words and moved ones, for which the tuning set got sentences of their
kind. `settling_fourth.json` was written before these rules; the two wrong answers of it that they still called right
led to the rules on bounds, on relations and on what is turned. `settling_fifth.json`, of their kind, was written after
these and has changed nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.decidability import settle
from services.evaluator.judging.judgement import Standing
from services.evaluator.judging.reference_judge import judge
from services.evaluator.judging.signals import Signals
from services.evaluator.judging.text import sentences

HERE = Path(__file__).parent
DOCS = Path(__file__).parents[3] / "docs" / "judging.md"
KINDS = {
    "right": "right: copies, rewordings, terse",
    "number": "another number",
    "number_word": "another number, in words",
    "unit": "another unit",
    "bound": "a bound exchanged or turned (up to, above)",
    "swapped": "two things in each other's place",
    "name": "another name or entity",
    "negation": "a negation more or less",
    "antonym": "an opposite (before/after)",
    "restriction": "a restriction more or less (only, some)",
    "connective": "another connective (unless, or, may)",
    "invented": "invented facts",
    "keywords": "a list of keywords",
    "echo": "the question again",
    "loop": "a sentence in circles",
    "partial": "a part only",
    "rule": "breaks a must-rule only",
}


def labelled(name: str, *, with_rules: bool = True):
    for case in json.loads((HERE / f"settling_{name}.json").read_text()):
        criteria = case["criteria"] if with_rules else {}
        sample = GoldenSample("s", case["prompt"], case["expected"], criteria=criteria)
        for kind, answers in {"right": case["right"], **case["wrong"]}.items():
            for answer in answers:
                yield kind, sample, answer


def counted(name: str, *, with_rules: bool = True) -> dict[str, Counter[bool | None]]:
    found: dict[str, Counter[bool | None]] = {}
    for kind, sample, answer in labelled(name, with_rules=with_rules):
        found.setdefault(kind, Counter())[settle(sample, answer).right] += 1
    return found


def totals(found: dict[str, Counter[bool | None]]) -> tuple[Counter[bool | None], Counter[bool | None]]:
    wrong = sum((counts for kind, counts in found.items() if kind != "right"), Counter())
    return found["right"], wrong


@pytest.mark.requirement("LA-3.2")
@pytest.mark.parametrize(("with_rules", "decided"), [(True, 10), (False, 9)])
def test_held_out_answers_are_rarely_decided_wrongly(with_rules, decided):
    right, wrong = totals(counted("held_out", with_rules=with_rules))
    assert right[False] == 0  # no right answer is called wrong
    assert not with_rules or wrong[False] >= 29
    assert right[True] >= decided  # of 19
    assert wrong[True] == 0  # of 60 wrong ones
    assert sum(right.values()) == 19
    assert sum(wrong.values()) == 60


@pytest.mark.requirement("LA-3.2")
@pytest.mark.parametrize(
    ("name", "rights", "decided", "wrongs", "mistaken"),
    [("second", 18, 10, 63, 0), ("third", 15, 8, 58, 0), ("fourth", 28, 12, 133, 0), ("fifth", 24, 7, 57, 0)],
)
def test_what_was_written_later_is_rarely_decided_wrongly(name, rights, decided, wrongs, mistaken):
    right, wrong = totals(counted(name))
    assert right[False] == 0
    assert right[True] >= decided
    assert wrong[True] <= mistaken
    assert (sum(right.values()), sum(wrong.values())) == (rights, wrongs)


def test_a_word_that_takes_a_side_which_the_expected_output_leaves_open_is_undecided():
    sample = GoldenSample(
        "s", "What does it cost?", "A badge costs twelve euros.", criteria={"accuracy": "Must mention 12 euros"}
    )
    found = settle(sample, "A badge, at twelve euros, is free.")
    assert (found.right, found.why) == (None, "has 'free', and the expected output neither it nor its opposite")


def test_two_that_changed_places_are_undecided_although_the_prompt_names_both():
    sample = GoldenSample("s", "What do cook and baker do?", "The cook plans the menu; the baker orders the flour.")
    assert settle(sample, "The baker plans the menu; the cook orders the flour.").right is None


@pytest.mark.parametrize("name", ["tuning", "held_out", "fourth"])
def test_no_keyword_list_echo_or_loop_is_left_to_similarity(name):
    found = counted(name)
    for kind in ("echo", "loop"):
        assert set(found[kind]) == {False}
    assert found["keywords"][True] == 0
    assert found["keywords"][False] >= 0.9 * sum(found["keywords"].values())


def test_the_documentation_has_the_measured_table():
    shown_sets = ("held_out", "tuning", "fourth", "fifth")
    tables = {name: counted(name) for name in shown_sets}
    text = DOCS.read_text()
    for kind, what in KINDS.items():
        shown = [
            " | ".join(str(tables[name].get(kind, Counter())[verdict]) for verdict in (True, None, False))
            for name in shown_sets
        ]
        assert f"| {what} | {' | '.join(shown)} |" in text


def perfect(text: str) -> Signals:
    """Embeddings that find everything right."""
    return Signals(1.0, 0.7, 0.7, (1.0,) * len(sentences(text)), -2.5, -2.5)


@pytest.mark.requirement("LA-5.1")
def test_under_the_most_favourable_signals_few_wrong_answers_could_approve():
    high = [
        (kind, answer)
        for kind, sample, answer in labelled("held_out")
        if kind != "right"
        and (found := judge(sample, answer, perfect(sample.expected_output))).overall is not None
        and found.overall >= 85
    ]
    assert not high


@pytest.mark.requirement("LA-3.2")
def test_under_the_same_signals_right_answers_rarely_score_below_the_line_of_rejection():
    scores = [
        judge(sample, answer, perfect(sample.expected_output)).overall
        for name in ("held_out", "second", "third", "fourth", "fifth")
        for kind, sample, answer in labelled(name)
        if kind == "right"
    ]
    assert len(scores) == 104
    assert sum(score is None or score < 70 for score in scores) <= 0.05 * len(scores)


@pytest.mark.requirement("LA-3.1")
def test_a_broken_must_rule_fails_a_sample_that_is_perfect_otherwise():
    sample = GoldenSample("s", "How long?", "It takes 45 days.", criteria={"accuracy": "Must cite §9 | 45 days"})
    rest = "It takes forty days."
    found = judge(sample, rest, perfect(sample.expected_output))
    assert found.vetoes == ("Must cite §9 | 45 days",)
    assert found.standing is Standing.DECIDED
    assert found.verdicts["accuracy"].score == 0
    assert found.overall is not None
    assert found.overall < 40


def test_a_rule_on_length_lowers_its_criterion_and_vetoes_nothing():
    sample = GoldenSample("s", "How long?", "It takes 45 days.", criteria={"style": "At most 4 words"})
    longer = judge(sample, "It takes 45 days, that is it.", perfect(sample.expected_output))
    assert longer.vetoes == ()
    assert longer.verdicts["style"].score <= 5


def test_an_undecided_answer_has_an_estimate_below_the_line_of_approval():
    sample = GoldenSample("s", "Who decides?", "The harbour master decides in the morning.")
    found = judge(sample, "The harbour pilot decides in the morning.", perfect(sample.expected_output))
    assert found.standing is Standing.UNDECIDED
    assert found.overall is not None
    assert found.overall == 84.5
    assert "'pilot' where" in found.why


@pytest.mark.parametrize(
    ("answer", "right"),
    [("Tide.", True), ('"tide"', True), ("EBB", True), ("The tide.", False), ("tide and ebb", False)],
)
def test_a_sample_with_exact_answers_is_always_decided(answer, right):
    sample = GoldenSample("s", "Which tool?", "Tide", criteria={"accuracy": "Must equal tide | ebb"})
    assert settle(sample, answer).right is right


def test_a_quantity_is_named_as_the_text_has_it():
    sample = GoldenSample("s", "How long?", "Within 60 days.")
    assert settle(sample, "Within the season.").why == "lacks the quantity 60 days"
    assert (
        settle(sample, "Within 60 days and 20 minutes.").why == "has the quantity 20 minutes, which is nowhere expected"
    )
