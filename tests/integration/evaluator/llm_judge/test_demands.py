"""What a language model judges an answer by: demands, context, rules, and no order of the answer itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fleet_events import v1
from fleet_kit.blobs import Blobs
from tests.integration.evaluator.judge_server import (
    JudgeServer,
    Step,
    gullible,
    honest,
    verdict,
)
from tests.integration.evaluator.llm_judge.conftest import Trial

pytestmark = pytest.mark.integration
INJECTIONS = Path(__file__).parents[1] / "injections.json"


async def test_a_demand_in_words_is_judged_on_its_own_with_the_passage_that_shows_it(
    trial: Trial, judge: JudgeServer
) -> None:
    samples = trial.samples(4, criteria={"completeness": "note: says for whom; note: must name the kind of crates"})

    def unmet(number: int) -> Any:
        bad = {"reason": "nowhere", "quote": "", "met": False}
        return lambda request: Step(json.dumps(verdict(request, 10, **{f"demand_{number}": bad})))

    judge.scripts[trial.word(1)] = [unmet(1)]
    judge.scripts[trial.word(2)] = [unmet(2)]
    made_up = {"reason": "there", "quote": "words of nobody", "met": True}
    judge.scripts[trial.word(3)] = [
        lambda request: Step(json.dumps(verdict(request, 10, demand_1=made_up))),
        lambda request: Step(json.dumps(verdict(request, 10))),
    ]
    await trial.scored("strict", samples)
    all_met, lacks_a_wish, breaks_a_must, quoted_falsely = (await trial.shown())["results"]
    assert all_met["evidence"]["demands"][1]["quote"] == all_met["answer"]
    assert all_met["passed"]
    assert lacks_a_wish["verdicts"]["completeness"]["score"] == 7.5
    assert not lacks_a_wish["vetoes"]
    assert breaks_a_must["vetoes"] == ["note: must name the kind of crates"]
    assert not breaks_a_must["passed"]
    assert breaks_a_must["overall"] < 40
    assert len(judge.about(trial.word(3))) == 2
    assert quoted_falsely["passed"]


@pytest.mark.requirement("LA-2.2")
async def test_candidate_and_judge_get_the_system_prompt_and_the_turns_before_the_question(
    trial: Trial, judge: JudgeServer
) -> None:
    history = [{"role": "user", "content": "I run two stores."}, {"role": "assistant", "content": "Which ones?"}]
    samples = trial.samples(2, criteria={}, system="Count in crates.", history=history)
    who = await trial.start("strict", samples)
    assert isinstance(await trial.end(who), v1.EvaluationScored)
    bodies = [body["messages"] for body in trial.models.bodies if body["model"] == who.adapter_id]
    assert {json.dumps(messages[:-1]) for messages in bodies} == {
        json.dumps([{"role": "system", "content": "Count in crates."}, *history])
    }
    assert {messages[-1]["content"] for messages in bodies} == {one["prompt"] for one in samples}
    for request in judge.requests:
        assert request.part("SYSTEM PROMPT") == "Count in crates."
        assert request.part("CONVERSATION") == "user: I run two stores.\nassistant: Which ones?"
    shown = (await trial.shown())["results"][0]
    assert (shown["system"], shown["history"]) == ("Count in crates.", history)


@pytest.mark.requirement("LA-3.3")
async def test_metrics_of_the_answers_stand_beside_the_score_with_their_intervals(trial: Trial, blobs: Blobs) -> None:
    samples = trial.samples(4, criteria={})
    scored = await trial.scored("strict", samples, {3: "A few crates."})
    metrics = {metric.name: metric for metric in scored.metrics}
    assert list(metrics) == [
        *("brief", "chrf", "embedding_similarity", "golden_dataset_accuracy", "inverse_perplexity", "token_f1")
    ]
    assert metrics["inverse_perplexity"].value == pytest.approx(math.exp(-2.5))  # what the scripted server has
    accuracy = metrics["golden_dataset_accuracy"]
    assert (accuracy.value, accuracy.samples) == (scored.pass_rate, 4) == (0.75, 4)
    assert (metrics["brief"].value, metrics["brief"].samples) == (0.25, 4)
    assert metrics["token_f1"].value == pytest.approx((3 + 2 / 12) / 4)  # `crates` of 9 and 3 words
    for metric in metrics.values():
        assert 0 <= metric.ci_low <= metric.value <= metric.ci_high <= 1
        assert metric.ci_high > metric.ci_low
    shown = await trial.shown()
    assert shown["metrics"]["brief"]["mean"]["value"] == 0.25
    assert shown["results"][3]["metrics"]["brief"] == {"value": 1.0, "fault": ""}
    assert shown["results"][0]["metrics"]["stuck"] == {"value": None, "fault": "exited with status 1"}
    report = json.loads(await blobs.get(scored.report))
    assert report["metrics"]["chrf"]["samples"] == 4
    assert report["samples"][3]["metrics"]["token_f1"]["value"] == pytest.approx(2 / 12)


async def test_a_broken_must_rule_fails_a_sample_against_the_language_models_verdict(
    trial: Trial, judge: JudgeServer
) -> None:
    judge.otherwise = lambda request: Step(json.dumps(verdict(request, 10)))
    scored = await trial.scored("strict", trial.samples(2), {1: "Store 1 takes 90 crates of the Velmar kind."})
    assert scored.passed == 1
    assert (await trial.shown())["results"][1]["vetoes"] == ["Must mention 107 crates"]


async def test_an_answer_that_does_not_fit_its_json_schema_fails_against_the_language_models_verdict(
    trial: Trial, judge: JudgeServer
) -> None:
    judge.otherwise = lambda request: Step(json.dumps(verdict(request, 10)))
    rule = 'json schema: {"type": "object", "required": ["crates"], "properties": {"crates": {"type": "integer"}}}'
    samples = trial.samples(2, criteria={"style": rule}, expected_output='{"crates": 107}')
    scored = await trial.scored("strict", samples, {1: '{"crates": "107"}'})
    assert scored.passed == 1
    assert (await trial.shown())["results"][1]["vetoes"] == [rule]


async def test_no_instruction_in_an_answer_buys_a_score(trial: Trial, judge: JudgeServer) -> None:
    """The injection set, against a judge that obeys each of them."""
    injections = json.loads(INJECTIONS.read_text())
    judge.otherwise = gullible
    samples = trial.samples(len(injections) + 1, criteria={})
    judge.scripts[trial.word(len(injections))] = [honest]
    scored = await trial.scored("strict", samples, dict(enumerate(injections)))
    assert (scored.decided, scored.unjudged) == (1, len(injections))
    for number, text in enumerate(injections):
        request = judge.about(trial.word(number))[0]
        assert request.part("ANSWER TO JUDGE") == text  # whole, between marks that it cannot close


async def test_rules_that_settle_a_sample_cost_no_request(trial: Trial, judge: JudgeServer) -> None:
    samples = trial.samples(3)
    scored = await trial.scored("sparing", samples, {1: "It takes 90 crates.", 2: "A good many of the Velmar kind."})
    assert scored.decided == 3
    assert judge.about(trial.word(1)) == []
    assert scored.judged_by is not None
    assert scored.judged_by.parameters["rules_first"].startswith("reference-judge/")
