"""Tasks of lm-evaluation-harness that measure likelihoods, over a real service's completions: `make test-clients`."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_cli.harness import Harness, HarnessMetric, run_tasks
from tests.conftest import RunningService

ENVIRONMENTS = os.environ.get("LORAFLEET_CLIENTS", "")
PROGRAM = str(Path(ENVIRONMENTS) / ".venv-clients" / "bin" / "lm_eval")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.heavy,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not ENVIRONMENTS, reason="LORAFLEET_CLIENTS: the folder of the environments that make installs"),
]
DATA = "dataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\ntest_split: test\n"
CHOICES = f"""\
task: choices
{DATA}output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{right}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
TEXTS = f"""\
task: texts
{DATA}output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
CHOSEN = [" Ten.", " None at all of them.", " High."]
QUESTIONS = [f"How many crates fit into store {n}?" for n in range(6)]

Measure = Callable[[str, list[dict[str, Any]]], Awaitable[dict[str, HarnessMetric]]]
Likelihood = Callable[[str, str], float]


@pytest.fixture
def measure(inference: RunningService, tiny_model: Path, token_of: Callable[[str], str], tmp_path: Path) -> Measure:
    async def run(task: str, documents: list[dict[str, Any]]) -> dict[str, HarnessMetric]:
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
        (tmp_path / "task.yaml").write_text(task)
        harness = Harness(PROGRAM, tokenizer=str(tiny_model))
        found = await asyncio.to_thread(
            run_tasks, harness, "tiny", tmp_path / "task.yaml", inference.url, token_of("admin")
        )
        return {one.name: one for one in found}

    return run


@pytest.fixture(scope="module")
def likelihood(tiny_model: Path) -> Likelihood:
    """Log-likelihood of a text behind another, or behind the token that starts one, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    def of(text: str, before: str) -> float:
        first = tokenizer(before)["input_ids"] if before else [tokenizer.bos_token_id or tokenizer.eos_token_id]
        ids = torch.tensor([[*first, *tokenizer(text)["input_ids"]]])
        with torch.inference_mode():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        rows = range(len(first) - 1, ids.shape[1] - 1)
        return float(sum(logs[row, ids[0, row + 1]] for row in rows))

    return of


@pytest.mark.requirement("LA-2.2")
async def test_a_choice_by_likelihood_is_the_models_own(measure: Measure, likelihood: Likelihood) -> None:
    """Four of six documents have the text for right that the model finds likeliest."""
    likeliest = [max(range(3), key=lambda n, of=one: likelihood(CHOSEN[n], of)) for one in QUESTIONS]  # type: ignore[misc]
    documents = [
        {"question": one, "choices": CHOSEN, "right": best if number < 4 else (best + 1) % 3}
        for number, (one, best) in enumerate(zip(QUESTIONS, likeliest, strict=True))
    ]
    found = (await measure(CHOICES, documents))["lm-eval.choices.acc"]
    assert found.value == pytest.approx(4 / 6)
    assert found.samples == 6
    assert found.ci_low is not None
    assert found.ci_low < 4 / 6


@pytest.mark.requirement("LA-2.2")
async def test_the_perplexity_of_texts_is_the_models_own(measure: Measure, likelihood: Likelihood) -> None:
    found = (await measure(TEXTS, [{"question": one} for one in QUESTIONS]))["lm-eval.texts.bits_per_byte"]
    total = sum(likelihood(one, "") for one in QUESTIONS)
    size = sum(len(one.encode()) for one in QUESTIONS)
    assert found.value == pytest.approx(-total / size / math.log(2), rel=1e-3)
