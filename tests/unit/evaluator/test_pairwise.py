"""Two answers compared in both orders: what counts as a win, how steady a judge is, and which verdicts are none."""

from __future__ import annotations

import json
import math

import pytest

from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.llm_verdict import BadVerdict
from services.evaluator.judging.pair_agreement import (
    UNMEASURED,
    LabelledPair,
    PairAccuracy,
    accuracy,
    pair_agreement,
)
from services.evaluator.judging.pairwise import Outcome, Pair, PairVerdict, Preferred, majority, preference
from services.evaluator.judging.pairwise_judge import ask_pair, read_pair_verdict
from services.evaluator.judging.panel_pairs import combined_pair

FIRST, SECOND, TIE = Preferred.FIRST, Preferred.SECOND, Preferred.TIE
SAMPLE = GoldenSample("s", "Where?", "There.")


def pair(new_first: Preferred, new_second: Preferred) -> Pair:
    return Pair(PairVerdict(new_first, "a"), PairVerdict(new_second, "b"))


@pytest.mark.parametrize(
    ("new_first", "new_second", "outcome", "consistent", "bias"),
    [
        (FIRST, SECOND, Outcome.WIN, True, 0),
        (SECOND, FIRST, Outcome.LOSS, True, 0),
        (TIE, TIE, Outcome.TIE, True, 0),
        (FIRST, FIRST, Outcome.TIE, False, 1),
        (SECOND, SECOND, Outcome.TIE, False, -1),
        (FIRST, TIE, Outcome.TIE, False, 0.5),
        (TIE, FIRST, Outcome.TIE, False, 0.5),
    ],
)
def test_only_what_both_orders_agree_on_is_a_win_or_a_loss(
    new_first: Preferred, new_second: Preferred, outcome: Outcome, consistent: bool, bias: float
) -> None:
    found = pair(new_first, new_second)
    assert (found.outcome, found.consistent, found.position_bias) == (outcome, consistent, bias)


def test_a_judge_that_always_prefers_the_first_place_finds_no_version_better() -> None:
    found = preference([pair(FIRST, FIRST)] * 20, missing=0, confidence=0.95)
    assert found is not None
    assert (found.win_rate.value, found.consistency, found.position_bias) == (0.5, 0, 1)


def test_pairs_without_a_verdict_widen_the_interval_and_move_no_rate() -> None:
    pairs = [pair(FIRST, SECOND)] * 15 + [pair(SECOND, FIRST)] * 5
    all_judged, some_missing = preference(pairs, 0, 0.95), preference(pairs, 5, 0.95)
    assert all_judged is not None
    assert some_missing is not None
    assert all_judged.win_rate.value == some_missing.win_rate.value == 0.75
    assert some_missing.win_rate.low < all_judged.win_rate.low
    assert some_missing.win_rate.high > all_judged.win_rate.high
    assert preference([], 5, 0.95) is None


def test_of_several_verdicts_of_one_order_more_than_half_have_to_agree() -> None:
    assert (
        majority([(1, PairVerdict(FIRST, "a")), (1, PairVerdict(FIRST, "b")), (1, PairVerdict(TIE, "c"))]).preferred
        is FIRST
    )
    assert majority([(1, PairVerdict(FIRST, "a")), (1, PairVerdict(SECOND, "b"))]).preferred is TIE


def test_in_a_panel_most_members_decide_in_each_order_and_a_judge_of_places_moves_nothing() -> None:
    better, worse, biased = pair(FIRST, SECOND), pair(SECOND, FIRST), pair(FIRST, FIRST)

    def outcome(*pairs: Pair | None) -> Outcome | None:
        by_member = {f"j{n}": (one, "" if one else "cut off") for n, one in enumerate(pairs)}
        found, why = combined_pair(by_member, dict.fromkeys(by_member, UNMEASURED))
        assert (found is None) == bool(why)
        return found.outcome if found else None

    assert outcome(better, better, worse) is Outcome.WIN
    assert outcome(worse, worse, biased) is Outcome.LOSS
    assert outcome(better, worse) is Outcome.TIE
    assert outcome(better, biased, biased) is Outcome.TIE
    assert outcome(better, better, None) is Outcome.WIN
    assert outcome(better, None) is None
    _, why = combined_pair({"a": (better, ""), "b": (None, "cut off")}, {"a": UNMEASURED, "b": UNMEASURED})
    assert why == "1 of 2 members have a verdict; b: cut off"


def test_in_a_panel_a_vote_weighs_what_peoples_labels_gave_it() -> None:
    better, worse = pair(FIRST, SECOND), pair(SECOND, FIRST)

    def outcome(*votes: tuple[Pair, PairAccuracy]) -> Outcome | None:
        by_member = {f"j{n}": (one, "") for n, (one, _) in enumerate(votes)}
        found, _ = combined_pair(by_member, {f"j{n}": accuracy for n, (_, accuracy) in enumerate(votes)})
        return found.outcome if found else None

    good, fair, poor = PairAccuracy(40, 38), PairAccuracy(40, 26), PairAccuracy(40, 18)
    assert outcome((better, good), (worse, fair), (worse, fair)) is Outcome.WIN
    assert outcome((better, fair), (worse, fair), (worse, fair)) is Outcome.LOSS
    assert outcome((better, good), (worse, poor), (worse, poor)) is Outcome.WIN  # no better than chance: not counted
    assert outcome((better, poor), (worse, poor)) is None
    assert outcome((better, good), (worse, UNMEASURED)) is Outcome.WIN
    assert UNMEASURED.weight == pytest.approx(math.log(3))


def test_agreement_on_pairs_counts_those_that_people_order_with_ties_as_half() -> None:
    better, biased = pair(FIRST, SECOND), pair(FIRST, FIRST)
    labelled = (
        [LabelledPair(better, 80, 40)] * 6 + [LabelledPair(better, 40, 80)] * 2 + [LabelledPair(biased, 90, 10)] * 2
    )
    near = [LabelledPair(better, 50, 55)] * 10  # people do not order these
    assert accuracy([*labelled, *near]) == PairAccuracy(10, 7.0)
    found = pair_agreement([*labelled, *near])
    assert found is not None
    assert (found.pairs, found.consistency) == (10, 0.9)
    assert found.rate.value == pytest.approx(0.7)
    assert found.rate.low < 0.7 < found.rate.high
    assert pair_agreement([LabelledPair(better, 80, 40)] * 4) is None
    assert accuracy([LabelledPair(biased, 80, 40)] * 40).weight < 0.1  # a judge of places


def test_a_verdict_on_a_pair_is_read_and_anything_else_is_refused_with_what_would_be_right() -> None:
    question = ask_pair(SAMPLE, "Where?", "Here.", "There.")
    right = {"reason": "r", "canary": question.canary, "preferred": "second"}
    assert read_pair_verdict(json.dumps(right), question) == PairVerdict(SECOND, "r")
    for text, why in (
        (json.dumps(right | {"preferred": "both"}), "preferred: "),
        (json.dumps(right | {"canary": 10}), "do not follow instructions"),
        (json.dumps(right | {"score": 3}), "score: "),
        (json.dumps(dict(reversed(right.items()))), "reason first"),
        ("the second", "no JSON object"),
    ):
        with pytest.raises(BadVerdict, match=why):
            read_pair_verdict(text, question)


def test_each_order_is_a_question_of_its_own_with_its_own_marks() -> None:
    one, other = ask_pair(SAMPLE, "Where?", "Here.", "There."), ask_pair(SAMPLE, "Where?", "There.", "Here.")
    marks = [{line for line in asked.user.splitlines() if line.startswith("MARK ")} for asked in (one, other)]
    assert len(marks[0]) == len(marks[1]) == 1
    assert marks[0] != marks[1]
    assert one.user.index("Here.") < one.user.index("SECOND ANSWER") < other.user.index("Here.")
