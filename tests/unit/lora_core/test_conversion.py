"""MLX → GGUF → quantised → validated → manifest, in one call, on the adapter that mlx-lm trained."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lora_core import AdapterNotFound, ArrowEngine, InvalidAdapter
from lora_core.conversion import Description, convert_for_llama
from lora_core.interop import from_gguf, from_mlx, to_peft
from lora_core.interop.gguf import Quantisation
from lora_core.profiles import level_threshold
from tests.unit.lora_core.test_gguf_levels import card_for, model_of_nine_layers

FIXTURE = Path(__file__).parents[2] / "fixtures" / "mlx"
MODEL = FIXTURE / "model"
TEXTS = [[2, 3, 5, 7, 11, 13, 17, 19], [23, 29, 31, 37, 41], [43, 47]]


@pytest.fixture(scope="module")
def engine(tiny_tokenizer: PreTrainedTokenizerFast) -> ArrowEngine:
    return ArrowEngine(AutoModelForCausalLM.from_pretrained(MODEL).eval(), tiny_tokenizer, slots=2, max_rank=16)


def description(adapter_type: str = "workflow-builder") -> Description:
    created = datetime(2026, 11, 21, 10, tzinfo=UTC)
    return Description("triage", "1.0.0", "tiny", adapter_type, 360, created, ("routing", "triage"))


@pytest.mark.requirement("AS-2.1")
@pytest.mark.requirement("AS-2.2")
def test_an_mlx_adapter_becomes_a_gguf_file_with_a_manifest_of_what_was_measured(
    engine: ArrowEngine, tmp_path: Path
) -> None:
    made = convert_for_llama(FIXTURE / "lora", tmp_path, MODEL, description(), engine=engine, validation=TEXTS)
    original, back = from_mlx(FIXTURE / "lora", MODEL), from_gguf(made.gguf, MODEL)
    assert back.weights.keys() == original.weights.keys()
    assert (made.difference.agreement, made.difference.positions) == (1.0, 15)
    assert made.error < 1e-6
    manifest = json.loads((tmp_path / "triage.manifest.json").read_text())
    assert manifest == made.manifest.model_dump(mode="json")
    assert manifest["file_size"] == made.gguf.stat().st_size
    assert (manifest["specialized_for"], manifest["training_data_size"]) == (["routing", "triage"], 360)
    assert manifest["performance_metrics"]["same_token"] == 1.0
    assert engine.loaded == ()


@pytest.mark.requirement("AS-2.3")
def test_a_quantised_adapter_is_kept_only_where_it_passes_on_the_validation_texts(
    engine: ArrowEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "peft"
    to_peft(from_mlx(FIXTURE / "lora", MODEL), folder)
    made = convert_for_llama(
        folder, tmp_path / "kept", MODEL, description(), engine=engine, validation=TEXTS, quantisation="q8_0"
    )
    assert 0 < made.error < 0.01
    assert 0.98 <= made.difference.agreement <= 1
    assert made.difference.divergence > 0
    monkeypatch.setattr("lora_core.conversion.level_threshold", lambda *_: 1.01)
    with pytest.raises(InvalidAdapter, match=r"of 15 positions', expected at least 1\.01: choose a finer level"):
        convert_for_llama(
            folder, tmp_path / "gone", MODEL, description(), engine=engine, validation=TEXTS, quantisation="q8_0"
        )
    assert list((tmp_path / "gone").iterdir()) == []
    with pytest.raises(ValueError, match="prompts: expected at least one"):
        convert_for_llama(folder, tmp_path / "gone", MODEL, description(), engine=engine, validation=[])
    with pytest.raises(AdapterNotFound, match=r"adapters\.safetensors"):
        convert_for_llama(tmp_path, tmp_path / "gone", MODEL, description(), engine=engine, validation=TEXTS)


@pytest.mark.requirement("AS-2.3")
@pytest.mark.parametrize("level", ["q6_k", "q4_k_m"])
def test_levels_of_super_blocks_pass_through_the_pipeline(
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    level: Quantisation,
) -> None:
    model = model_of_nine_layers(tmp_path / "model")
    engine = ArrowEngine(AutoModelForCausalLM.from_pretrained(model).eval(), tiny_tokenizer, slots=2, max_rank=16)
    to_peft(replace(card_for(model, rank=4), alpha=0.001), tmp_path / "peft")
    texts = [[one % 32 for one in text] for text in TEXTS]
    made = convert_for_llama(
        tmp_path / "peft", tmp_path, model, description("any"), engine=engine, validation=texts, quantisation=level
    )
    assert made.difference.agreement >= level_threshold("any", level)
    assert 0.001 < made.error < {"q6_k": 0.03, "q4_k_m": 0.1}[level]
    assert made.difference.divergence > 0


@pytest.mark.requirement("AS-7.1")
def test_a_level_has_the_threshold_of_its_profile_and_else_the_strictest() -> None:
    assert [level_threshold("anything", level) for level in ("q4_k_m", "q6_k", "q8_0")] == [0.85, 0.95, 0.98]
    assert (level_threshold("anything", None), level_threshold("intent-classifier", "q2_k")) == (1.0, 1.0)
