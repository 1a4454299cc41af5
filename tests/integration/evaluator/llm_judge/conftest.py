"""An evaluator whose judges are language models: a scripted server with the faults of real ones, on real servers."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService, RunService
from tests.integration.evaluator.conftest import Bus, Golden, adapter, eventually, sample
from tests.integration.evaluator.judge_server import (
    JudgeServer,
    ReceivedRequest,
    honest,
    judging,
)
from tests.integration.evaluator.model_server import ModelServer

BRIEF = "import json, sys; print(float(len(json.load(sys.stdin)['answer'].split()) < 6))"
"""A metric as a command."""


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgeServer]:
    with judging(JudgeServer()) as server:
        yield server


@pytest.fixture(autouse=True)
def _honest(judge: JudgeServer) -> None:
    judge.scripts, judge.otherwise, judge.requests, judge.delay, judge.key = {}, honest, [], 0.0, "judge-key"


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
        "other-pairs": {**one, "model": "other-model", "pairwise": True},
        "harsh": {**one, "model": "harsh-model"},
    }
    panels = {
        "house": ["strict", "harsh", "reference"],
        "comparing": ["pairs", "other-pairs", "strict"],
        "voting": ["pairs", "other-pairs"],
    }
    async with run_service(
        "evaluator",
        LORAFLEET_INFERENCE_URL=models.url,
        LORAFLEET_LEASE_SECONDS="2",
        LORAFLEET_READY_SECONDS="6",
        LORAFLEET_RETRY_SECONDS="0.3",
        LORAFLEET_JUDGES=json.dumps(judges),
        LORAFLEET_METRICS=json.dumps(
            ["token_f1", "chrf", "json_validity", "embedding_similarity", "inverse_perplexity"]
        ),
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
        request = [sample(n, **changes) for n in range(count)]
        return [one | {"prompt": f"{one['prompt'][:-1]} in {self.mark}-{n}?"} for n, one in enumerate(request)]

    def word(self, number: int) -> str:
        """In the question of that sample alone."""
        return f"{self.mark}-{number}?"

    def number(self, request: ReceivedRequest) -> int:
        """Of the sample that a request is about."""
        return int(request.part("QUESTION").partition(f"{self.mark}-")[2].rstrip("?"))

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
        self.event_id = await self.bus.publish(registered, "registry", who.adapter_id)
        return who

    async def end(self, who: v1.Adapter) -> v1.EvaluationScored | v1.EvaluationFailed:
        async def over() -> list[Any]:
            scored = await self.bus.published(v1.EvaluationScored, adapter_id=who.adapter_id)
            return scored or await self.bus.published(v1.EvaluationFailed, adapter_id=who.adapter_id)

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
