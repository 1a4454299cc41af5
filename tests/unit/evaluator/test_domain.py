"""Pure transitions of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.evaluator.domain import (
    Evaluation,
    EvaluationFailure,
    SampleResult,
    Served,
    check_served,
    compare,
    summarise,
    waited_out,
)
from services.evaluator.judging.criteria import Criterion
from services.evaluator.judging.reference_judge import Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVALUATION = Evaluation(
    evaluation_id="e1",
    adapter_id="shop-lora-v1.0.0",
    family="shop-lora",
    domain="shop",
    artifact_sha256="a" * 64,
    base_model="base",
    wanted_dataset="",
    dataset_id=None,
    version=None,
    golden_sha256=None,
    judge="reference-judge/1",
    max_tokens=512,
    pass_threshold=70.0,
    state="queued",
    total=0,
    reason="",
    requested_by="test",
    created_at=NOW,
    waiting_since=None,
    finished_at=None,
)


def result(sample_id: str, overall: float, accuracy: float = 5.0) -> SampleResult:
    verdicts = dict.fromkeys(Criterion, Verdict(8.0, "")) | {Criterion.ACCURACY: Verdict(accuracy, "")}
    return SampleResult(sample_id, "an answer", "gen", "stop", overall, verdicts)


def test_the_adapter_and_artifact_that_are_to_be_judged_must_answer():
    assert check_served(EVALUATION, Served("shop-lora-v1.0.0", "a" * 64)) == "a" * 64


@pytest.mark.parametrize(
    ("served", "why"),
    [
        (Served("", ""), "the base model answered"),
        (Served("shop-lora-v0.9.0", "a" * 64), "shop-lora-v0.9.0 answered"),
        (Served("shop-lora-v1.0.0", "b" * 64), "is to be judged"),
        (Served("shop-lora-v1.0.0", ""), "did not say which artifact"),
    ],
)
def test_no_other_model_is_judged_in_silence(served, why):
    with pytest.raises(EvaluationFailure, match=why):
        check_served(EVALUATION, served)


def test_an_unknown_artifact_is_pinned_by_what_answers_first():
    assert check_served(replace(EVALUATION, artifact_sha256=""), Served("shop-lora-v1.0.0", "c" * 64)) == "c" * 64


@pytest.mark.requirement("LA-3.3")
@pytest.mark.parametrize(("threshold", "passed"), [(70.0, 3), (70.1, 2), (95.0, 1), (100.0, 0), (0.0, 4)])
def test_the_pass_rate_follows_the_threshold(threshold, passed):
    results = [result("a", 70.0), result("b", 90.0), result("c", 95.0), result("d", 20.0)]
    difficulties = {"a": "easy", "b": "easy", "c": "hard", "d": "hard"}
    found = summarise(results, difficulties, threshold)
    assert (found.passed, found.samples) == (passed, 4)
    assert found.pass_rate.value == passed / 4
    assert found.score.value == pytest.approx(68.75)
    assert found.by_difficulty == {"easy": 80.0, "hard": 57.5}
    assert found.criteria["style"] == 8.0


def test_the_order_in_which_samples_finish_does_not_change_the_result():
    results = [result(name, score) for name, score in zip("abcdef", (10, 90, 80, 70, 99, 50), strict=True)]
    difficulties = dict.fromkeys("abcdef", "easy")
    assert summarise(results, difficulties, 70) == summarise(results[::-1], difficulties, 70)


def test_samples_without_a_score_are_missing_evidence_and_none_at_all_is_a_failure():
    difficulties = {f"s{i}": "easy" for i in range(30)}
    some = [result(f"s{i}", 95.0) for i in range(24)]
    found = summarise(some, difficulties, 70)
    assert (found.samples, found.decided, found.score.value) == (30, 24, 95)
    assert found.score.low < 70
    with pytest.raises(EvaluationFailure, match="none of the 30 golden samples has a score"):
        summarise([], difficulties, 70)


def test_a_later_submission_to_the_same_data_set_has_a_wider_interval():
    results = [result(f"s{i}", 95.0) for i in range(50)]
    difficulties = {f"s{i}": "easy" for i in range(50)}
    lows = [summarise(results, difficulties, 70, submission=number).score.low for number in (1, 2, 3, 10)]
    assert lows == sorted(lows, reverse=True)
    assert lows[0] - lows[-1] > 5
    second = summarise(results, difficulties, 70, submission=2)
    assert (second.submission, second.confidence) == (2, pytest.approx(0.975))


def test_answers_that_were_cut_are_counted():
    cut = replace(result("a", 40.0), finish_reason="length")
    assert summarise([cut, result("b", 90.0)], {"a": "easy", "b": "easy"}, 70).cut_answers == 1


@pytest.mark.requirement("LA-3.4")
def test_versions_are_compared_sample_by_sample():
    old = [result(f"s{i}", 80.0 + i % 5, accuracy=9.0) for i in range(20)]
    new = [result(f"s{i}", 70.0 + i % 5, accuracy=6.0) for i in range(20)]
    found = compare(new, old)
    assert found is not None
    assert found.regression
    assert found.fallen == ("accuracy",)
    assert found.difference.value == pytest.approx(-10)


def test_waiting_for_inference_has_an_end():
    limit = timedelta(seconds=60)
    assert not waited_out(EVALUATION, NOW, limit)
    waiting = replace(EVALUATION, waiting_since=NOW)
    assert not waited_out(waiting, NOW + timedelta(seconds=59), limit)
    assert waited_out(waiting, NOW + timedelta(seconds=61), limit)
