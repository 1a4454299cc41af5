"""PEFT's adapters on every language model that transformers builds: what slots give is what PEFT gives."""

from pathlib import Path

import pytest

from tests.architectures_table import ALL, PAGE, row, stated, versions
from tests.peft_comparison import EXACT, KINDS, compared

USUAL = (
    "opt", "gemma2", "gpt_oss", "mamba", "falcon", "bloom", "gpt_neox", "qwen2_moe", "deepseek_v3", "qwen3_5",
    "llava",
)  # fmt: skip
"""One of each kind: tokens as one list, capped attention, no sdpa, states, a Linear of its own, shared experts, latent
attention, heads of a single output, a model of images and text."""


@pytest.mark.unit
@pytest.mark.requirement("LI-6.5")
@pytest.mark.parametrize("model_type", USUAL)
def test_adapters_of_peft_give_in_slots_what_they_give_in_peft(model_type: str, tmp_path: Path) -> None:
    found = compared(model_type, tmp_path)
    assert {kind: getattr(found, kind) for kind in KINDS} == dict.fromkeys(KINDS, EXACT)
    assert row(model_type, found) == stated()[model_type]


@pytest.mark.heavy
@pytest.mark.parametrize("model_type", [model_type for model_type in ALL if model_type not in USUAL])
def test_every_row_of_the_page_on_architectures_is_what_is_found(model_type: str, tmp_path: Path) -> None:
    assert row(model_type, compared(model_type, tmp_path)) == stated()[model_type]


@pytest.mark.unit
def test_the_page_on_architectures_is_of_what_is_installed() -> None:
    page = " ".join(PAGE.read_text().split())
    assert f"models of images and text: {versions()}." in page
    assert stated().keys() == set(ALL)
    exact = sum(line.count(f" {EXACT} |") == len(KINDS) for line in stated().values())
    assert f"{exact} of {len(ALL)} classes are exact" in page
