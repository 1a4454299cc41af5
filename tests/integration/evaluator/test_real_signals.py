"""The recorded calibration signals are what the real inference service says, over the protocol that judging uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from services.evaluator.code_tests.code_settings import CodeSettings
from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.criteria import parse
from services.evaluator.judging.judge import ReferenceJudge
from services.evaluator.judging.signals import Signals
from services.evaluator.openai_client import OpenAIClient
from tests.conftest import RunService

CALIBRATION = Path(__file__).parents[2] / "unit" / "evaluator"
pytestmark = pytest.mark.integration


@pytest.mark.heavy
@pytest.mark.usefixtures("base_model")
async def test_the_real_inference_service_gives_the_recorded_signals(
    run_service: RunService, token_of: Callable[[str], str]
) -> None:
    recorded = json.loads((CALIBRATION / "calibration_signals.json").read_text())
    rules = {c["prompt"]: c["criteria"] for c in json.loads((CALIBRATION / "calibration_cases.json").read_text())}
    async with (
        run_service("inference") as inference,
        httpx.AsyncClient(headers={"Authorization": f"Bearer {token_of('evaluator')}"}) as http,
    ):
        name = "SmolLM2-135M-Instruct"
        judge = ReferenceJudge(
            OpenAIClient(http, inference.url, timeout=120, headers={}),
            base_model=name,
            embeddings_model="all-MiniLM-L6-v2",
            tests=CodeTests(CodeSettings(), "no sample here has tests"),
        )
        for case in recorded[:2]:
            expected = case["answers"][0]["answer"]
            sample = GoldenSample("s", case["prompt"], expected, criteria=rules[case["prompt"]])
            assert parse(sample.criteria) == sample.rules
            for answer in case["answers"][:4]:
                finding = await judge.judge(sample, sample.prompt, answer["answer"])
                measured, known = Signals.from_json(dict(finding.evidence)), Signals.from_json(answer["signals"])
                for field in ("answer_expected", "answer_prompt", "expected_prompt"):
                    assert getattr(measured, field) == pytest.approx(getattr(known, field), abs=0.01), field
                assert measured.coverage == pytest.approx(known.coverage, abs=0.01)
                for field in ("answer_likelihood", "expected_likelihood"):
                    assert getattr(measured, field) == pytest.approx(getattr(known, field), abs=0.05), field
                right = answer["kind"] in {"expected", "paraphrase"}
                assert (finding.judgement.overall >= 80) is right
