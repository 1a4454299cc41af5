"""Samples as two versions answered them: who won, in which order, and what has no score."""

import pytest

from lorafleet.responses import Evaluation, EvaluationDetail
from services.console.pages.compare import SIZE, Duels, duels, newest_alike

pytestmark = pytest.mark.unit


def judged(**scores: float | None) -> EvaluationDetail:
    results = [{"sample_id": name, "overall": score} for name, score in scores.items()]
    return EvaluationDetail.model_validate({"evaluation_id": "e", "results": results})


def test_the_clearest_losses_come_first_and_samples_without_a_score_last() -> None:
    found = duels(
        judged(won=90, lost=20, none=None, level=50, badly=10), judged(won=60, lost=30, none=70, level=50, badly=95)
    )
    assert [(one.first.sample_id, one.difference) for one in found] == [
        ("badly", -85), ("lost", -10), ("level", 0), ("won", 30), ("none", None),
    ]  # fmt: skip
    pair = Duels("a", "b", found)
    assert (pair.won, pair.lost) == (1, 2)


def test_samples_that_one_version_was_not_judged_on_are_left_out() -> None:
    assert [one.first.sample_id for one in duels(judged(a=1, b=2), judged(b=3, c=4))] == ["b"]


def test_pages_of_samples_have_each_once() -> None:
    every = duels(*(judged(**{f"s{n}": float(n) for n in range(SIZE + 3)}) for _ in range(2)))
    pair = Duels("a", "b", every)
    assert [*pair.of_page(1), *pair.of_page(2)] == every
    assert len(pair.of_page(2)) == 3
    assert pair.of_page(3) == []


def test_evaluations_of_another_judge_other_samples_or_longer_answers_are_not_set_against_one_another() -> None:
    def scored(name: str, **terms: object) -> Evaluation:
        return Evaluation.model_validate(
            {"evaluation_id": name, "golden_sha256": "a", "judge": "llm/1", "max_tokens": 512} | terms
        )

    newest, older = scored("newest", judge="reference/3"), scored("older")
    for other in (scored("x", golden_sha256="b"), scored("x", judge="llm/2"), scored("x", max_tokens=96)):
        assert newest_alike([newest, older], [other]) is None
    found = newest_alike([newest, older], [scored("y", max_tokens=96), scored("z"), scored("before z")])
    assert found is not None
    assert [one.evaluation_id for one in found] == ["older", "z"]
