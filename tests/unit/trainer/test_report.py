"""What the router gets to know of a data set."""

import json
from pathlib import Path

import pytest

from services.trainer.reporting.report import example_prompts

pytestmark = pytest.mark.unit


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in pairs))
    return path


def test_every_answer_of_a_data_set_has_a_prompt_before_any_has_a_second(tmp_path: Path) -> None:
    pairs = [(f"q{answer}-{wording}", f"a{answer}") for wording in range(10) for answer in range(36)]
    prompts = example_prompts(write(tmp_path / "data.jsonl", pairs))
    assert len(prompts) == 64
    assert {prompt.partition("-")[0] for prompt in prompts[:36]} == {f"q{answer}" for answer in range(36)}


def test_a_prompt_with_several_answers_is_named_once(tmp_path: Path) -> None:
    lines = write(tmp_path / "data.jsonl", [("same", "a"), ("same", "b"), ("other", "a")])
    assert example_prompts(lines) == ("same", "other")
