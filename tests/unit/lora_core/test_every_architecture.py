"""PEFT's adapters on every language model that transformers builds: what slots give is what PEFT gives."""

from pathlib import Path

import pytest

from tests.peft_comparison import EXACT, KINDS, compared

USUAL = (
    "opt", "gemma2", "gpt_oss", "mamba", "falcon", "bloom", "gpt_neox", "qwen2_moe", "deepseek_v3", "qwen3_5_text",
    "llava",
)  # fmt: skip
"""One of each kind: tokens as one list, capped attention, no sdpa, states, a Linear of its own, shared experts, latent
attention, heads of a single output, a model of images and text."""


@pytest.mark.unit
@pytest.mark.parametrize("model_type", USUAL)
def test_adapters_of_peft_give_in_slots_what_they_give_in_peft(model_type: str, tmp_path: Path) -> None:
    found = compared(model_type, tmp_path)
    assert {kind: getattr(found, kind) for kind in KINDS} == dict.fromkeys(KINDS, EXACT)
