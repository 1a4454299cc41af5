"""LoRA files for llama.cpp, read back: the same adapter, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_core import AdapterNotFound, CorruptAdapter, LoRACard, UnsupportedAdapter
from lora_core.array import widen
from lora_core.interop import from_gguf, to_gguf

MODULE = "model.layers.0.mlp.up_proj"


@pytest.fixture
def model(tiny_llama, tmp_path) -> Path:
    tiny_llama.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(model: Path, **settings: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def delta(card: LoRACard, module: str) -> np.ndarray:
    weights = card.weights[module]
    return card.scaling(module) * (widen(weights.b).astype(np.float64) @ widen(weights.a).astype(np.float64))


@pytest.mark.requirement("AS-2.2")
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM"])
@pytest.mark.parametrize("rslora", [False, True])
def test_what_was_written_is_read_back_as_the_same_adapter(make_card, model, tmp_path, architecture, rslora) -> None:
    change(model, architectures=[architecture])
    card = replace(make_card("größer"), rslora=rslora)
    card = replace(card, weights={**card.weights, MODULE: replace(card.weights[MODULE], alpha=7.0)})
    to_gguf(card, tmp_path / "card.gguf", model)
    back = from_gguf(tmp_path / "card.gguf", model)
    assert (back.name, back.rank, back.target_modules) == (card.name, card.rank, tuple(sorted(card.target_modules)))
    assert back.weights.keys() == card.weights.keys()
    for module in card.weights:
        assert np.array_equal(back.weights[module].a, widen(card.weights[module].a))
        assert delta(back, module) == pytest.approx(
            delta(card, module), rel=1e-5, abs=1e-7
        )  # B was rounded once, products cancel


def test_float16_stays_float16_and_bfloat16_becomes_float32(make_card, model, tmp_path) -> None:
    for dtype, found in (("float16", "float16"), ("bfloat16", "float32")):
        to_gguf(make_card(dtype=dtype), tmp_path / "card.gguf", model)
        assert from_gguf(tmp_path / "card.gguf", model).weights[MODULE].a.dtype == found


def test_a_file_that_is_no_such_adapter_is_refused(make_card, model, tmp_path) -> None:
    path = tmp_path / "card.gguf"
    with pytest.raises(AdapterNotFound):
        from_gguf(path, model)
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CorruptAdapter, match="not a GGUF file"):
        from_gguf(path, model)
    to_gguf(make_card(), path, model)
    change(model, architectures=["Qwen2ForCausalLM"])
    with pytest.raises(UnsupportedAdapter, match=r"general\.architecture is 'llama', expected 'qwen2'"):
        from_gguf(path, model)
    change(model, architectures=["PhiForCausalLM"])
    with pytest.raises(UnsupportedAdapter, match="PhiForCausalLM"):
        from_gguf(path, model)


def test_a_file_for_a_model_with_more_layers_is_refused(make_card, model, tmp_path) -> None:
    import gguf

    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    for letter, shape in (("a", (4, 64)), ("b", (64, 4))):
        writer.add_tensor(f"blk.9.attn_output.weight.lora_{letter}", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CorruptAdapter, match=r"blk\.9\.attn_output\.weight is no layer"):
        from_gguf(path, model)


def test_a_storage_that_the_gguf_package_does_not_decode_is_refused_by_name(model, tmp_path) -> None:
    import gguf

    path, kind = tmp_path / "odd.gguf", gguf.GGMLQuantizationType.Q8_1
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    for letter, rows in (("a", 4), ("b", 64)):
        packed = np.zeros((rows, gguf.GGML_QUANT_SIZES[kind][1] * 2), np.uint8)
        writer.add_tensor(f"blk.0.attn_q.weight.lora_{letter}", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedAdapter, match=r"blk\.0\.attn_q\.weight\.lora_a.*Q8_1.*expected a storage"):
        from_gguf(path, model)
