"""What a replay of verdicts rests on: the recorded parameters, measurements and faults of a judge."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from services.evaluator.code_tests.code_settings import CodeSettings
from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.judging import reference_judge
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.llm_judge import LLMJudge, recorded_settings
from services.evaluator.judging.replay import lacks_answers, recorded_signals
from services.evaluator.judging.settings import JudgeSettings
from services.evaluator.judging.signals import NOTHING

pytestmark = pytest.mark.unit


def judge(settings: JudgeSettings) -> LLMJudge:
    return LLMJudge("gpt", settings, JudgeEndpoint("gpt", settings, httpx.AsyncClient()), CodeTests(CodeSettings(), ""))


async def test_a_judge_that_left_the_settings_is_made_again_from_what_its_evaluation_recorded() -> None:
    settings = JudgeSettings(
        url="https://judge.test/v1",
        model="judge-model",
        key_file=Path("/run/judge-keys/gpt"),
        answers="json_object",
        samples=3,
        attempts=2,
        parameters={"temperature": 0.7, "reasoning": {"effort": "low"}},
        budget_tokens=5,
    )
    recorded = recorded_settings(asdict(judge(settings).description))
    assert recorded is not None
    assert judge(recorded).name == judge(settings).name
    assert recorded.key_file is None  # it was never recorded, and nothing is requested


def test_the_reference_judge_has_recorded_no_settings() -> None:
    assert recorded_settings({"name": "reference-judge", "parameters": {"base_model": "b"}}) is None


def test_measurements_and_faults_are_found_in_a_panels_evidence_too() -> None:
    signals = NOTHING.to_json()
    of_panel = {
        "members": {
            "gpt/1+abc": {"evidence": {"missing": ["judge 'gpt': no answer within 2 s, 5 times"]}},
            reference_judge.NAME: {"evidence": signals},
        }
    }
    assert recorded_signals(signals) == recorded_signals(of_panel) == NOTHING
    assert recorded_signals({"verdicts": []}) is None
    assert lacks_answers(of_panel)
    assert not lacks_answers(signals)
