"""A judge may be a model of our own inference: its answers have the form of a verdict, however it draws them."""

from __future__ import annotations

import json
import re

import pytest
from jsonschema import validate

from lora_core.grammar import Form
from services.evaluator.judging.llm_question import schema_of
from services.evaluator.judging.llm_verdict import BadVerdict, read_verdict
from services.evaluator.judging.pairwise_judge import ask_pair
from tests.unit.evaluator.test_llm_verdict import ANSWER, QUESTION, SAMPLE
from tests.unit.lora_core.test_grammar import answer

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("seed", range(2))
def test_a_verdict_has_all_of_its_fields_with_each_reason_before_its_score(seed: int) -> None:
    text = answer(Form.of_json(QUESTION.schema), seed, most=20_000)
    validate(json.loads(text), schema_of(len(QUESTION.demands)))
    # What a model without sense gets wrong is the canary or a quotation, never the form.
    with pytest.raises(BadVerdict, match=re.compile(r"canary|quote")):
        read_verdict(text, QUESTION)


def test_a_comparison_of_two_answers_has_its_form_too() -> None:
    pair = ask_pair(SAMPLE, SAMPLE.prompt, ANSWER, "Never.")
    validate(json.loads(answer(Form.of_json(pair.schema), 1, most=20_000)), dict(pair.schema))
