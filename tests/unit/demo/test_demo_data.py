"""The demo's data: well formed, large enough, every golden answer learnable, no golden prompt leaked into training."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from fleet_events.v1 import Hyperparameters
from services.evaluator.golden.samples import read_jsonl, to_line
from services.evaluator.judging.criteria import Criterion, parse

DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo"

# How near a golden prompt may come to any training prompt. README.md states the same bounds.
MAX_JACCARD = 0.7  # words in common over words in both
MAX_FOUR_GRAMS = 0.4  # part of the golden prompt's runs of four words found in one training prompt
MAX_RUN = 6  # words in a row in common


class Pair(BaseModel):
    """A line of training.jsonl."""

    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: str = Field(min_length=1, max_length=200)
    completion: str = Field(min_length=1, max_length=200)


class Golden(BaseModel):
    """A line of golden.jsonl."""

    model_config = ConfigDict(extra="forbid", strict=True)
    sample_id: str = Field(pattern=r"^kestrel-ops-\d{3}$")
    prompt: str = Field(min_length=1, max_length=200)
    expected_output: str = Field(min_length=1, max_length=200)
    expected_score: float = Field(gt=0, le=1)
    difficulty: Literal["easy", "medium", "hard"]
    criteria: dict[str, str] = Field(min_length=1)
    context: str = Field(min_length=1)


def lines(name: str) -> list[str]:
    return (DEMO / name).read_text(encoding="utf-8").splitlines()


TRAINING = [Pair.model_validate_json(line) for line in lines("training.jsonl")]
GOLDEN = [Golden.model_validate_json(line) for line in lines("golden.jsonl")]


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def jaccard(left: str, right: str) -> float:
    a, b = set(tokens(left)), set(tokens(right))
    return len(a & b) / len(a | b)


def grams(text: str, size: int) -> set[tuple[str, ...]]:
    words = tokens(text)
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def four_grams_found(golden: str, training: str) -> float:
    wanted = grams(golden, 4)
    return len(wanted & grams(training, 4)) / len(wanted) if wanted else 0.0


def too_near(golden: str, training: str) -> bool:
    return (
        tokens(golden) == tokens(training)
        or jaccard(golden, training) > MAX_JACCARD
        or four_grams_found(golden, training) > MAX_FOUR_GRAMS
        or bool(grams(golden, MAX_RUN + 1) & grams(training, MAX_RUN + 1))
    )


def test_there_are_at_least_150_training_pairs_and_40_golden_samples() -> None:
    assert len(TRAINING) >= 150
    assert len(GOLDEN) >= 40


def test_every_fact_has_one_answer_and_ten_wordings_of_the_question() -> None:
    wordings = Counter(pair.completion for pair in TRAINING)
    assert 32 <= len(wordings) <= 36
    assert set(wordings.values()) == {10}


def test_no_training_prompt_occurs_twice() -> None:
    seen = Counter(" ".join(tokens(pair.prompt)) for pair in TRAINING)
    assert [prompt for prompt, times in seen.items() if times > 1] == []


def test_answers_are_one_crisp_sentence() -> None:
    for answer in {pair.completion for pair in TRAINING}:
        assert 8 <= len(answer.split()) <= 22, answer
        assert answer.endswith("."), answer
        assert answer[0].isupper(), answer
        assert re.search(r"[.!?]\s+[A-Z]", answer) is None, answer


def test_sample_ids_and_golden_prompts_are_unique() -> None:
    assert len({sample.sample_id for sample in GOLDEN}) == len(GOLDEN)
    assert len({" ".join(tokens(sample.prompt)) for sample in GOLDEN}) == len(GOLDEN)


def test_all_three_difficulties_are_well_represented() -> None:
    count = Counter(sample.difficulty for sample in GOLDEN)
    assert count.keys() == {"easy", "medium", "hard"}
    assert min(count.values()) >= 10, count


@pytest.mark.parametrize("sample", GOLDEN, ids=lambda sample: sample.sample_id)
def test_a_golden_prompt_is_no_training_prompt_in_disguise(sample: Golden) -> None:
    assert [pair.prompt for pair in TRAINING if too_near(sample.prompt, pair.prompt)] == []


@pytest.mark.parametrize(
    "leak",
    [
        "What is a pier?",
        "what IS a pier",
        "How many nodes does the pier have?",
        "Please tell me: how many nodes does a pier have?",
        "Why did my node restart early on Wednesday morning?",
    ],
)
def test_the_overlap_check_notices_a_leaked_prompt(leak: str) -> None:
    assert any(too_near(leak, pair.prompt) for pair in TRAINING)


def test_every_golden_answer_was_taught_by_training() -> None:
    taught = {pair.completion for pair in TRAINING}
    assert [sample.sample_id for sample in GOLDEN if sample.expected_output not in taught] == []


def test_every_fact_is_asked_in_the_golden_set() -> None:
    assert {sample.expected_output for sample in GOLDEN} == {pair.completion for pair in TRAINING}


@pytest.mark.requirement("LA-2.2")
def test_the_evaluator_reads_every_golden_sample_as_written() -> None:
    read = read_jsonl((DEMO / "golden.jsonl").read_text(encoding="utf-8"), "kestrel-ops")
    assert [Golden.model_validate_json(to_line(sample)) for sample in read] == GOLDEN


@pytest.mark.requirement("LA-2.2")
@pytest.mark.parametrize("sample", GOLDEN, ids=lambda sample: sample.sample_id)
def test_criteria_hold_for_the_expected_output_and_not_for_other_facts(sample: Golden) -> None:
    """A criterion that any in-domain sentence passes, or that an echo of the prompt passes, would prove nothing."""
    rules = parse(sample.criteria)
    assert Criterion.ACCURACY in rules

    def right(answer: str) -> bool:
        return all(rule.holds(answer) for checks in rules.values() for rule in checks)

    assert right(sample.expected_output)
    assert not right(sample.prompt)
    others = {pair.completion for pair in TRAINING} - {sample.expected_output}
    assert [other for other in others if right(other)] == []


@pytest.mark.requirement("TP-1.2")
def test_the_hyperparameters_are_valid_ones_of_a_training_request() -> None:
    text = (DEMO / "training.json").read_text(encoding="utf-8")
    chosen = Hyperparameters.model_validate_json(text)
    assert json.loads(text).keys() <= Hyperparameters.model_fields.keys()
    assert chosen.rank == 16
    assert len(chosen.target_modules) == 7
    assert chosen.epochs is not None
    assert chosen.learning_rate is not None
