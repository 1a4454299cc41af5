"""A language model as judge, over a scripted server with the faults of real ones, on real NATS, PostgreSQL and S3."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fleet_events import v1
from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobMissing
from tests.conftest import RunningService, RunService
from tests.integration.evaluator.conftest import Bus, Golden, activated, adapter, eventually, sample
from tests.integration.evaluator.judge_server import (
    Asked,
    JudgeServer,
    Step,
    fault,
    gullible,
    honest,
    judging,
    preferred,
    verdict,
    writes,
)
from tests.integration.evaluator.model_server import ModelServer

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent


BRIEF = "import json, sys; print(float(len(json.load(sys.stdin)['answer'].split()) < 6))"
"""A metric as a command."""


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgeServer]:
    with judging(JudgeServer()) as server:
        yield server


@pytest.fixture(autouse=True)
def _honest(judge: JudgeServer) -> None:
    judge.scripts, judge.otherwise, judge.asked, judge.delay, judge.key = {}, honest, [], 0.0, "judge-key"


@pytest.fixture(scope="module")
async def evaluator(
    run_service: RunService, models: ModelServer, judge: JudgeServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    key = tmp_path_factory.mktemp("judge") / "key"
    key.write_text("judge-key\n")
    one = {"url": judge.url, "model": "judge-model", "key_file": str(key), "timeout": 1.5, "tries": 2, "concurrency": 4}
    judges = {
        "strict": {**one, "prompt_price": 2.0, "answer_price": 10.0},
        "thrice": {**one, "samples": 3, "parameters": {"temperature": 0.7, "max_tokens": 900}},
        "poor": {**one, "budget_tokens": 3300, "concurrency": 1},
        "sparing": {**one, "rules_first": True},
        "pairs": {**one, "pairwise": True},
        "harsh": {**one, "model": "harsh-model"},
    }
    panels = {"house": ["strict", "harsh", "reference"]}
    async with run_service(
        "evaluator",
        LORAFLEET_INFERENCE_URL=models.url,
        LORAFLEET_LEASE_SECONDS="2",
        LORAFLEET_READY_SECONDS="6",
        LORAFLEET_RETRY_SECONDS="0.3",
        LORAFLEET_JUDGES=json.dumps(judges),
        LORAFLEET_METRICS=json.dumps(["token_f1", "chrf", "json_validity", "embedding_similarity"]),
        LORAFLEET_METRIC_COMMANDS=json.dumps(
            {"brief": {"command": ["/usr/bin/env", "python3", "-c", BRIEF]}, "stuck": {"command": ["false"]}}
        ),
        LORAFLEET_PANELS=json.dumps(panels),
        LORAFLEET_JUDGE_OF_DOMAIN=json.dumps({name: name for name in (*judges, *panels)}),
        LORAFLEET_JUDGE_OF_GOLDEN=json.dumps({"of-thrice": "thrice", "of-none": "reference"}),
    ) as running:
        yield running


class Trial:
    """Has a new version judged by the judge of that domain, on samples with questions of their own."""

    def __init__(self, evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus) -> None:
        self.evaluator, self.models, self.golden, self.bus = evaluator, models, golden, bus
        self.mark = secrets.token_hex(4)
        self.started = 0

    def samples(self, count: int, **changes: Any) -> list[dict[str, Any]]:
        asked = [sample(n, **changes) for n in range(count)]
        return [one | {"prompt": f"{one['prompt'][:-1]} in {self.mark}-{n}?"} for n, one in enumerate(asked)]

    def word(self, number: int) -> str:
        """In the question of that sample alone."""
        return f"{self.mark}-{number}?"

    def number(self, asked: Asked) -> int:
        """Of the sample that a request is about."""
        return int(asked.part("QUESTION").partition(f"{self.mark}-")[2].rstrip("?"))

    async def start(
        self,
        judge: str,
        samples: list[dict[str, Any]],
        answers: dict[int, str] | None = None,
        dataset_id: str = "",
    ) -> v1.Adapter:
        dataset_id = dataset_id or f"{judge}-{self.mark}"
        await self.golden.make(dataset_id, judge, samples)
        self.started += 1
        who = adapter(judge, f"1.{self.started}.{int(self.mark, 16) % 10**8}")
        self.models.adapters[who.adapter_id] = who.artifact.blob.sha256
        for number, one in enumerate(samples):
            self.models.answers[who.adapter_id, one["prompt"]] = (answers or {}).get(number, one["expected_output"])
        registered = v1.AdapterRegistered(adapter=who, revision=1, golden_dataset_id=dataset_id)
        self.event_id = await self.bus.say(registered, "registry", who.adapter_id)
        return who

    async def end(self, who: v1.Adapter) -> v1.EvaluationScored | v1.EvaluationFailed:
        async def over() -> list[Any]:
            scored = await self.bus.said(v1.EvaluationScored, adapter_id=who.adapter_id)
            return scored or await self.bus.said(v1.EvaluationFailed, adapter_id=who.adapter_id)

        found: v1.EvaluationScored | v1.EvaluationFailed = (await eventually(over))[0]
        return found

    async def scored(
        self, judge: str, samples: list[dict[str, Any]], answers: dict[int, str] | None = None, dataset_id: str = ""
    ) -> v1.EvaluationScored:
        found = await self.end(await self.start(judge, samples, answers, dataset_id))
        assert isinstance(found, v1.EvaluationScored), found
        return found

    async def shown(self) -> dict[str, Any]:
        return (await self.evaluator.client.get(f"/v1/evaluations/{self.event_id}")).json()  # type: ignore[no-any-return]


@pytest.fixture
def trial(evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus) -> Trial:
    return Trial(evaluator, models, golden, bus)


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
    assert {asked.body["model"] for asked in judge.asked} == {"judge-model"}

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
    assert sorted(map(str, requests)) == sorted(str(asked.body) for asked in judge.asked)
    answer = json.loads(await blobs.get(v1.Blob(**kept[0]["answer"])))
    assert json.loads(answer["choices"][0]["message"]["content"])["canary"]["score"] in range(1, 10)
    assert "judge-key" not in json.dumps(report) + str(requests)

    metrics = (await trial.evaluator.client.get("/metrics")).text
    assert 'lorafleet_judge_tokens_total{judge="strict",kind="prompt"}' in metrics
    assert 'lorafleet_judge_requests_total{judge="strict",outcome="answered"}' in metrics


def cut(asked: Asked) -> Step:
    return Step(json.dumps(verdict(asked, 9))[:150], finish_reason="length")


def cut_in_silence(asked: Asked) -> Step:
    return Step(json.dumps(verdict(asked, 9))[:150])


def too_much(asked: Asked) -> Step:
    return Step(json.dumps(verdict(asked, 9, accuracy={"reason": "superb", "score": 11})))


def too_little(asked: Asked) -> Step:
    return Step(json.dumps({name: part for name, part in verdict(asked, 9).items() if name != "style"}))


def score_first(asked: Asked) -> Step:
    return Step(json.dumps(verdict(asked, 9, style={"score": 9, "reason": "why not"})))


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
        asked = judge.about(trial.word(number))
        assert len(asked) == 2, name
        assert "no verdict" in asked[1].body["messages"][-1]["content"], name


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
    judge.otherwise = lambda asked: Step(f"Here it is:\n```json\n{json.dumps(verdict(asked, 8))}\n```")
    assert (await trial.scored("strict", trial.samples(2))).score == 80.0
    shown = await trial.shown()
    assert [one["evidence"]["repaired"] for one in shown["results"]] == [1, 1]
    assert shown["judging"]["requests"] == 2


async def test_a_busy_judge_is_asked_again_when_it_said(trial: Trial, judge: JudgeServer) -> None:
    samples = trial.samples(3)
    judge.scripts[trial.word(0)] = [fault(429, "rate_limit_exceeded", Retry_After="1"), honest]
    judge.scripts[trial.word(1)] = [fault(503), honest]
    assert (await trial.scored("strict", samples)).decided == 3
    first, second = judge.about(trial.word(0))
    assert second.at - first.at >= 1
    assert first.body == second.body
    assert len(judge.about(trial.word(1))) == 2


async def test_a_slow_answer_costs_its_own_sample_alone(trial: Trial, judge: JudgeServer) -> None:
    judge.scripts[trial.word(2)] = [lambda asked: Step(honest(asked).text, delay=4)]
    scored = await trial.scored("strict", trial.samples(4))
    assert (scored.decided, scored.unjudged) == (3, 1)
    assert "no answer within 1.5 s" in (await trial.shown())["results"][2]["why"]


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "invalid_api_key", "key_file"),
        (404, "model_not_found", "url and model"),
        (400, "unsupported_value", "parameters"),
        (429, "insufficient_quota", "the account"),
    ],
)
async def test_what_no_repetition_mends_fails_the_evaluation_and_names_the_setting(
    trial: Trial, judge: JudgeServer, status: int, code: str, told: str
) -> None:
    judge.otherwise = fault(status, code)
    found = await trial.end(await trial.start("strict", trial.samples(2)))
    assert isinstance(found, v1.EvaluationFailed)
    assert "judge 'strict' refused" in found.reason
    assert told in found.reason


async def test_a_judge_that_stays_away_fails_the_evaluation_after_a_bounded_time(
    trial: Trial, judge: JudgeServer
) -> None:
    judge.otherwise = fault(429, "rate_limit_exceeded", Retry_After="3600")
    found = await trial.end(await trial.start("strict", trial.samples(2)))
    assert isinstance(found, v1.EvaluationFailed)
    assert "wants 3600 s" in found.reason


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
    assert len(judge.asked) == 3
    whys = {one["why"] for one in (await trial.shown())["results"] if one["standing"] == "unjudged"}
    assert whys == {"1 of 1 verdicts are missing: judge 'poor' has spent its 3300 tokens"}


async def test_of_several_verdicts_the_median_counts_and_the_spread_is_shown(trial: Trial, judge: JudgeServer) -> None:
    def of_many(asked: Asked) -> Step:
        return Step(json.dumps(verdict(asked, {0: 8, 3: 2, 6: 9}[asked.body["seed"]])))

    judge.otherwise = of_many
    scored = await trial.scored("strict", trial.samples(2), dataset_id="of-thrice")
    assert scored.judged_by is not None
    assert scored.judged_by.name == "thrice"  # the golden data set's judge comes before the domain's
    assert scored.score == 80.0
    evidence = (await trial.shown())["results"][0]["evidence"]
    assert sorted(evidence["overall"]) == [20.0, 80.0, 90.0]
    assert evidence["spread"] == 70.0


async def test_a_demand_in_words_is_judged_on_its_own_with_the_passage_that_shows_it(
    trial: Trial, judge: JudgeServer
) -> None:
    samples = trial.samples(4, criteria={"completeness": "note: says for whom; note: must name the kind of crates"})

    def unmet(number: int) -> Any:
        bad = {"reason": "nowhere", "quote": "", "met": False}
        return lambda asked: Step(json.dumps(verdict(asked, 10, **{f"demand_{number}": bad})))

    judge.scripts[trial.word(1)] = [unmet(1)]
    judge.scripts[trial.word(2)] = [unmet(2)]
    made_up = {"reason": "there", "quote": "words of nobody", "met": True}
    judge.scripts[trial.word(3)] = [
        lambda asked: Step(json.dumps(verdict(asked, 10, demand_1=made_up))),
        lambda asked: Step(json.dumps(verdict(asked, 10))),
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
    for asked in judge.asked:
        assert asked.part("SYSTEM PROMPT") == "Count in crates."
        assert asked.part("CONVERSATION") == "user: I run two stores.\nassistant: Which ones?"
    shown = (await trial.shown())["results"][0]
    assert (shown["system"], shown["history"]) == ("Count in crates.", history)


@pytest.mark.requirement("LA-3.3")
async def test_metrics_of_the_answers_stand_beside_the_score_with_their_intervals(trial: Trial, blobs: Blobs) -> None:
    samples = trial.samples(4, criteria={})
    scored = await trial.scored("strict", samples, {3: "A few crates."})
    metrics = {metric.name: metric for metric in scored.metrics}
    assert list(metrics) == ["brief", "chrf", "embedding_similarity", "golden_dataset_accuracy", "token_f1"]
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


async def test_a_broken_must_rule_fails_a_sample_whatever_the_language_model_says(
    trial: Trial, judge: JudgeServer
) -> None:
    judge.otherwise = lambda asked: Step(json.dumps(verdict(asked, 10)))
    scored = await trial.scored("strict", trial.samples(2), {1: "Store 1 takes 90 crates of the Velmar kind."})
    assert scored.passed == 1
    assert (await trial.shown())["results"][1]["vetoes"] == ["Must mention 107 crates"]


async def test_an_answer_that_does_not_fit_its_json_schema_fails_whatever_the_language_model_says(
    trial: Trial, judge: JudgeServer
) -> None:
    judge.otherwise = lambda asked: Step(json.dumps(verdict(asked, 10)))
    rule = 'json schema: {"type": "object", "required": ["crates"], "properties": {"crates": {"type": "integer"}}}'
    samples = trial.samples(2, criteria={"style": rule}, expected_output='{"crates": 107}')
    scored = await trial.scored("strict", samples, {1: '{"crates": "107"}'})
    assert scored.passed == 1
    assert (await trial.shown())["results"][1]["vetoes"] == [rule]


async def test_no_instruction_in_an_answer_buys_a_score(trial: Trial, judge: JudgeServer) -> None:
    """The injection set, against a judge that obeys each of them."""
    injections = json.loads((HERE / "injections.json").read_text())
    judge.otherwise = gullible
    samples = trial.samples(len(injections) + 1, criteria={})
    judge.scripts[trial.word(len(injections))] = [honest]
    scored = await trial.scored("strict", samples, dict(enumerate(injections)))
    assert (scored.decided, scored.unjudged) == (1, len(injections))
    for number, text in enumerate(injections):
        asked = judge.about(trial.word(number))[0]
        assert asked.part("ANSWER TO JUDGE") == text  # whole, between marks that it cannot close


async def test_rules_that_settle_a_sample_cost_no_request(trial: Trial, judge: JudgeServer) -> None:
    samples = trial.samples(3)
    scored = await trial.scored("sparing", samples, {1: "It takes 90 crates.", 2: "A good many of the Velmar kind."})
    assert scored.decided == 3
    assert judge.about(trial.word(1)) == []
    assert scored.judged_by is not None
    assert scored.judged_by.parameters["rules_first"].startswith("reference-judge/")


def prefers(text: str) -> Any:
    """Prefers the answer with that text wherever it stands."""
    return lambda asked: Step(json.dumps(preferred(asked, "first" if text in asked.part("FIRST ANSWER") else "second")))


PAIRS = [
    prefers("A new answer."),
    lambda asked: Step(json.dumps(preferred(asked, "first"))),
    lambda asked: Step(json.dumps(preferred(asked, "tie"))),
    gullible,
]
"""What the judge does with the pair of each sample."""


@pytest.mark.requirement("LA-3.4")
async def test_a_new_versions_answers_are_compared_with_the_active_ones_in_both_orders(
    trial: Trial, judge: JudgeServer, bus: Bus, blobs: Blobs
) -> None:
    samples = trial.samples(5, criteria={})
    old = await trial.start("pairs", samples, dict.fromkeys(range(5), "An old answer."))
    assert isinstance(await trial.end(old), v1.EvaluationScored)
    await activated(bus, trial.evaluator, old, revision=int(trial.mark, 16))
    judge.asked = []
    judge.otherwise = lambda asked: PAIRS[trial.number(asked)](asked) if asked.pair else honest(asked)
    new_answers = dict.fromkeys(range(5), "A new answer.") | {4: "An old answer."}
    scored = await trial.scored("pairs", samples, new_answers)

    assert scored.preference is not None
    told = scored.preference
    assert told.compared_with == old.adapter_id
    assert (told.samples, told.wins, told.losses, told.ties) == (4, 1, 0, 3)
    assert told.win_rate == pytest.approx((1 + 3 / 2) / 4)
    assert told.ci_low < told.win_rate < told.ci_high
    assert told.consistency == pytest.approx(3 / 4)
    assert told.position_bias == pytest.approx(1 / 4)
    asked = [one for one in judge.asked if one.pair and trial.number(one) == 0]
    assert len(asked) == 2  # both orders
    assert {one.part("FIRST ANSWER") for one in asked} == {"A new answer.", "An old answer."}
    assert not [one for one in judge.asked if one.pair and trial.number(one) == 4]  # the same answer

    shown = await trial.shown()
    assert shown["preference"]["consistency"] == told.consistency
    assert [one["pair"]["outcome"] for one in shown["results"]] == ["win", "tie", "tie", None, "tie"]
    assert "no verdict in 3 answers" in shown["results"][3]["pair"]["why"]
    report = json.loads(await blobs.get(scored.report))
    assert report["preference"]["wins"] == 1
    assert len(report["judging"]["exchanges"]) == 5 + 3 * 2 + 2 * 3  # three pairs, and one asked for thrice
    assert report["samples"][0]["pair"]["verdicts"]["new_second"] == {"preferred": "second", "reason": "compared"}


@pytest.mark.requirement("LA-3.5")
async def test_a_panel_gives_the_mean_of_scores_that_people_calibrated(
    trial: Trial, judge: JudgeServer, bus: Bus
) -> None:
    """The harsh member gives two points less than people; calibrated, both give the same."""

    def by_model(asked: Asked) -> Step:
        score = 3 + trial.number(asked) % 7
        return Step(json.dumps(verdict(asked, score - 2 if asked.body["model"] == "harsh-model" else score)))

    judge.otherwise = by_model
    samples = trial.samples(20, criteria={})
    client = trial.evaluator.client
    before = await trial.scored("house", samples, dict.fromkeys(range(20), "A good many of the Velmar kind."))
    assert before.judge.startswith("house/1+")
    assert before.agreement is None
    shown = await trial.shown()
    assert [one["overall"] for one in shown["results"][:3]] == [20.0, 30.0, 40.0]  # the reference judge abstains
    harsh = next(name for name in shown["judging"]["parameters"] if name.startswith("harsh/"))
    assert shown["results"][0]["evidence"]["members"][harsh]["overall"] == 10

    calibration = {"judge": harsh, "domain": "house"}
    early = await client.post("/v1/judges/calibration", json=calibration)
    assert (early.status_code, early.json()["field"]) == (409, "judge")
    for number in range(20):
        path = f"/v1/evaluations/{before.evaluation_id}/samples/s{number:03}/label"
        assert (await client.put(path, json={"score": 10 * (3 + number % 7)})).status_code == 200
    fitted = await client.post("/v1/judges/calibration", json=calibration)
    assert fitted.status_code == 201, fitted.text
    assert fitted.json()["intercept"] == pytest.approx(20)
    assert (fitted.json()["slope"], fitted.json()["answers"]) == (pytest.approx(1), 20)

    again = (await client.post("/v1/evaluations", json={"adapter_id": before.adapter_id})).json()["evaluation_id"]
    (after,) = await eventually(lambda: bus.said(v1.EvaluationScored, evaluation_id=again))
    assert after.judge != before.judge
    assert after.score == pytest.approx(before.score + 10)
    results = (await client.get(f"/v1/evaluations/{again}")).json()["results"]
    assert [one["overall"] for one in results[:3]] == pytest.approx([30.0, 40.0, 50.0])
    assert after.agreement is not None
    assert (after.agreement.answers, after.agreement.alpha) == (20, pytest.approx(1))


async def test_old_exchanges_leave_database_and_object_store(trial: Trial, blobs: Blobs) -> None:
    scored = await trial.scored("strict", trial.samples(2))
    kept = json.loads(await blobs.get(scored.report))["judging"]["exchanges"]
    request = v1.Blob(**kept[0]["request"])
    assert await blobs.get(request)
    connection = await asyncpg.connect(
        trial.evaluator.env["LORAFLEET_DATABASE_URL"], server_settings={"search_path": "evaluator"}
    )
    try:
        await connection.execute(
            "update judge_exchange set asked_at = now() - interval '401 days' where evaluation_id = $1",
            scored.evaluation_id,
        )
        await trial.evaluator.kill()
        await trial.evaluator.wait_ready()

        async def gone() -> bool:
            left = "select count(*) from judge_exchange where evaluation_id = $1"
            return int(await connection.fetchval(left, scored.evaluation_id)) == 0

        await eventually(gone)
    finally:
        await connection.close()
    with pytest.raises(BlobMissing):
        await blobs.get(request)


@pytest.mark.requirement("LA-3.5")
async def test_peoples_scores_stand_beside_the_judges(trial: Trial, judge: JudgeServer) -> None:
    by_number = {trial.word(number): 1 + number for number in range(8)}
    for word, score in by_number.items():
        judge.scripts[word] = [lambda asked, score=score: Step(json.dumps(verdict(asked, score)))]
    scored = await trial.scored("strict", trial.samples(8))
    before = (await trial.shown())["agreement"]
    assert (before["answers"], before["alpha"]) == (0, None)

    async def put(sample_id: str, **body: Any) -> int:
        path = f"/v1/evaluations/{scored.evaluation_id}/samples/{sample_id}/label"
        return (await trial.evaluator.client.put(path, json=body)).status_code

    for number in range(8):
        assert await put(f"s{number:03}", score=5) == 200  # thought better of below
        assert await put(f"s{number:03}", score=10 * number, note="as I see it") == 200
    assert await put("s999", score=5) == 404
    assert await put("s001", score=101) == 422
    found = (await trial.shown())["agreement"]
    assert (found["answers"], found["bias"]) == (8, pytest.approx(10))
    assert found["pairwise"]["value"] == 1
    assert found["alpha"]["low"] <= found["alpha"]["value"] < 1
    query = {"judge": scored.judge, "domain": "strict"}
    assert (await trial.evaluator.client.get("/v1/judges/agreement", params=query)).json() == found
