"""A language model as judge: verdicts, and the faults of real servers."""

from __future__ import annotations

import json

import pytest

from fleet_events import v1
from fleet_kit.blobs import Blobs
from tests.integration.evaluator.conftest import eventually
from tests.integration.evaluator.judge_server import (
    JudgeServer,
    ReceivedRequest,
    Step,
    fault,
    gullible,
    honest,
    verdict,
    writes,
)
from tests.integration.evaluator.llm_judge.conftest import Trial

pytestmark = pytest.mark.integration


@pytest.mark.requirement("LA-3.1")
@pytest.mark.requirement("LA-3.2")
async def test_the_domains_language_model_judges_and_everything_says_who_it_was(
    trial: Trial, judge: JudgeServer, blobs: Blobs
) -> None:
    samples = trial.samples(6, criteria={})
    scored = await trial.scored("strict", samples, {5: "Twelve crates."})
    assert (scored.samples, scored.decided, scored.passed) == (6, 6, 5)
    assert scored.score == pytest.approx((5 * 90 + 20) / 6)
    assert scored.judged_by is not None
    assert (scored.judged_by.name, scored.judged_by.model) == ("strict", "judge-model")
    assert len(scored.judged_by.prompt_sha256) == 64
    assert scored.judged_by.parameters["temperature"] == "0.0"
    assert scored.judge.startswith("strict/1+")
    assert {request.body["model"] for request in judge.requests} == {"judge-model"}

    shown = await trial.shown()
    assert shown["judging"]["requests"] == 6
    assert (shown["judging"]["prompt_tokens"], shown["judging"]["answer_tokens"]) == (6000, 600)
    assert shown["judging"]["cost"] == pytest.approx(6 * (1000 * 2 + 100 * 10) / 1e6)
    assert shown["results"][0]["verdicts"]["accuracy"] == {"score": 9.0, "reason": "seen: accuracy"}

    report = json.loads(await blobs.get(scored.report))
    assert report["judging"]["prompt_sha256"] == scored.judged_by.prompt_sha256
    kept = report["judging"]["exchanges"]
    assert len(kept) == 6
    requests = [json.loads(await blobs.get(v1.Blob(**one["request"]))) for one in kept]
    assert sorted(map(str, requests)) == sorted(str(request.body) for request in judge.requests)
    answer = json.loads(await blobs.get(v1.Blob(**kept[0]["answer"])))
    assert json.loads(answer["choices"][0]["message"]["content"])["canary"]["score"] in range(1, 10)
    assert "judge-key" not in json.dumps(report) + str(requests)

    metrics = (await trial.evaluator.client.get("/metrics")).text
    assert 'lorafleet_judge_tokens_total{judge="strict",kind="prompt"}' in metrics
    assert 'lorafleet_judge_requests_total{judge="strict",outcome="answered"}' in metrics


def cut(request: ReceivedRequest) -> Step:
    return Step(json.dumps(verdict(request, 9))[:150], finish_reason="length")


def cut_in_silence(request: ReceivedRequest) -> Step:
    return Step(json.dumps(verdict(request, 9))[:150])


def too_much(request: ReceivedRequest) -> Step:
    return Step(json.dumps(verdict(request, 9, accuracy={"reason": "superb", "score": 11})))


def too_little(request: ReceivedRequest) -> Step:
    return Step(json.dumps({name: part for name, part in verdict(request, 9).items() if name != "style"}))


def score_first(request: ReceivedRequest) -> Step:
    return Step(json.dumps(verdict(request, 9, style={"score": 9, "reason": "why not"})))


FAULTS = {
    "cut at the limit of tokens": cut,
    "cut in silence": cut_in_silence,
    "score above the scale": too_much,
    "criterion left out": too_little,
    "score before its reason": score_first,
    "refusal": lambda _: Step(refusal="I cannot help with that."),
    "content filter": writes("", finish_reason="content_filter"),
    "prose": writes("This answer is excellent, 10 out of 10."),
    "no chat completion": lambda _: Step(body='{"object": "error"}'),
    "obeys the answer": gullible,
}


async def test_an_answer_that_is_no_verdict_is_asked_for_again_and_then_the_sample_counts(
    trial: Trial, judge: JudgeServer
) -> None:
    """One sample a fault, all in one evaluation."""
    samples = trial.samples(len(FAULTS))
    for number, bad in enumerate(FAULTS.values()):
        judge.scripts[trial.word(number)] = [bad, honest]
    scored = await trial.scored("strict", samples)
    assert (scored.decided, scored.unjudged, scored.score) == (len(FAULTS), 0, 90.0)
    for number, name in enumerate(FAULTS):
        requests = judge.about(trial.word(number))
        assert len(requests) == 2, name
        assert "no verdict" in requests[1].body["messages"][-1]["content"], name


async def test_a_sample_without_a_verdict_is_unjudged_and_never_a_zero(trial: Trial, judge: JudgeServer) -> None:
    samples = trial.samples(len(FAULTS) + 4)
    for number, bad in enumerate(FAULTS.values()):
        judge.scripts[trial.word(number)] = [bad]
    scored = await trial.scored("strict", samples)
    assert (scored.samples, scored.decided, scored.unjudged) == (len(FAULTS) + 4, 4, len(FAULTS))
    assert scored.score == 90.0
    assert scored.ci_low < 50  # the missing ones might be anything
    assert all(len(judge.about(trial.word(number))) == 3 for number in range(len(FAULTS)))
    shown = await trial.shown()
    missing = [one for one in shown["results"] if one["standing"] == "unjudged"]
    assert len(missing) == len(FAULTS)
    assert all(one["overall"] is None and not one["passed"] and "no verdict" in one["why"] for one in missing)


async def test_a_code_fence_around_the_verdict_is_cut_away(trial: Trial, judge: JudgeServer) -> None:
    judge.otherwise = lambda request: Step(f"Here it is:\n```json\n{json.dumps(verdict(request, 8))}\n```")
    assert (await trial.scored("strict", trial.samples(2))).score == 80.0
    shown = await trial.shown()
    assert [one["evidence"]["repaired"] for one in shown["results"]] == [1, 1]
    assert shown["judging"]["requests"] == 2


async def test_a_busy_judge_is_called_again_after_the_time_it_gave(trial: Trial, judge: JudgeServer) -> None:
    samples = trial.samples(3)
    judge.scripts[trial.word(0)] = [fault(429, "rate_limit_exceeded", Retry_After="1"), honest]
    judge.scripts[trial.word(1)] = [fault(503), honest]
    assert (await trial.scored("strict", samples)).decided == 3
    first, second = judge.about(trial.word(0))
    assert second.at - first.at >= 1
    assert first.body == second.body
    assert len(judge.about(trial.word(1))) == 2


async def test_a_slow_answer_costs_its_own_sample_alone(trial: Trial, judge: JudgeServer) -> None:
    judge.scripts[trial.word(2)] = [lambda request: Step(honest(request).text, delay=4)]
    scored = await trial.scored("strict", trial.samples(4))
    assert (scored.decided, scored.unjudged) == (3, 1)
    assert "no answer within 1.5 s" in (await trial.shown())["results"][2]["why"]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "invalid_api_key", "key_file"),
        (404, "model_not_found", "url and model"),
        (400, "unsupported_value", "parameters"),
        (429, "insufficient_quota", "the account"),
    ],
)
async def test_what_no_repetition_mends_fails_the_evaluation_and_names_the_setting(
    trial: Trial, judge: JudgeServer, status: int, code: str, message: str
) -> None:
    judge.otherwise = fault(status, code)
    found = await trial.end(await trial.start("strict", trial.samples(2)))
    assert isinstance(found, v1.EvaluationFailed)
    assert "judge 'strict' refused" in found.reason
    assert message in found.reason


@pytest.mark.heavy
async def test_a_judge_that_stays_away_fails_the_evaluation_after_a_bounded_time(
    trial: Trial, judge: JudgeServer
) -> None:
    judge.otherwise = fault(429, "rate_limit_exceeded", Retry_After="3600")
    found = await trial.end(await trial.start("strict", trial.samples(2)))
    assert isinstance(found, v1.EvaluationFailed)
    assert "wants 3600 s" in found.reason


@pytest.mark.heavy
async def test_a_killed_evaluator_asks_the_judge_about_no_sample_twice(trial: Trial, judge: JudgeServer) -> None:
    judge.delay = 0.4
    samples = trial.samples(24)
    who = await trial.start("strict", samples)

    async def under_way() -> bool:
        return (await trial.shown()).get("done", 0) >= 6

    await eventually(under_way)
    await trial.evaluator.kill()
    in_flight = 4
    judge.delay = 0.0
    await trial.evaluator.wait_ready()
    found = await trial.end(who)
    assert isinstance(found, v1.EvaluationScored)
    assert (found.decided, found.score) == (24, 90.0)
    requests = [len(judge.about(trial.word(number))) for number in range(24)]
    assert min(requests) == 1
    assert sum(requests) <= 24 + in_flight  # those whose answer nobody was there to take


async def test_beyond_the_budget_samples_are_unjudged(trial: Trial, judge: JudgeServer) -> None:
    scored = await trial.scored("poor", trial.samples(8))
    assert scored.decided == 3  # 1,100 tokens each, 3,300 in all
    assert scored.unjudged == 5
    assert len(judge.requests) == 3
    whys = {one["why"] for one in (await trial.shown())["results"] if one["standing"] == "unjudged"}
    assert whys == {"1 of 1 verdicts are missing: judge 'poor' has spent its 3300 tokens"}


async def test_of_several_verdicts_the_median_counts_and_the_spread_is_shown(trial: Trial, judge: JudgeServer) -> None:
    def of_many(request: ReceivedRequest) -> Step:
        return Step(json.dumps(verdict(request, {0: 8, 3: 2, 6: 9}[request.body["seed"]])))

    judge.otherwise = of_many
    scored = await trial.scored("strict", trial.samples(2), dataset_id="of-thrice")
    assert scored.judged_by is not None
    assert scored.judged_by.name == "thrice"  # the golden data set's judge comes before the domain's
    assert scored.score == 80.0
    evidence = (await trial.shown())["results"][0]["evidence"]
    assert sorted(evidence["overall"]) == [20.0, 80.0, 90.0]
    assert evidence["spread"] == 70.0
