"""LoRA files for llama.cpp: what is in them, bit for bit, and what is refused.

That llama.cpp computes with them what we compute is proved in test_gguf_llama.py (`make test-llama`).
"""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from lora_core import AdapterNotFound, CorruptAdapter, InvalidAdapter, LoRACard, LoRAWeights, UnsupportedAdapter
from lora_core.array import narrow, widen
from lora_core.errors import UnsupportedBaseModel
from lora_core.interop import to_gguf

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEADS = {"q_proj": 4, "k_proj": 2}


@pytest.fixture
def model(tiny_llama, tmp_path) -> Path:
    tiny_llama.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(model: Path, **settings: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def gguf_name(module: str) -> str:
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"


def in_our_order(module: str, b: np.ndarray) -> np.ndarray:
    """Rows of B back from llama.cpp's order, in which a head's two halves are interleaved."""
    heads = HEADS.get(module.rpartition(".")[2])
    if heads is None:
        return b
    return np.concatenate([np.concatenate([head[0::2], head[1::2]]) for head in np.split(b, heads)])


def read(path: Path) -> tuple[dict[str, object], dict[str, object]]:
    """(metadata, tensors by name) of a file."""
    reader = GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}, {t.name: t for t in reader.tensors}


def scaled_deltas(path: Path, card: LoRACard) -> dict[str, np.ndarray]:
    """Module → what llama.cpp adds to its weight: alpha / rank · B A, with B's rows back in our order. In float64."""
    metadata, tensors = read(path)
    deltas = {}
    for module in card.weights:
        a, b = (tensors[f"{gguf_name(module)}.lora_{letter}"].data.astype(np.float64) for letter in "ab")
        b = in_our_order(module, b)
        deltas[module] = metadata["adapter.lora.alpha"] / b.shape[1] * (b @ a)
    return deltas


def our_delta(card: LoRACard, module: str) -> np.ndarray:
    weights = card.weights[module]
    return card.scaling(module) * (widen(weights.b).astype(np.float64) @ widen(weights.a).astype(np.float64))


@pytest.mark.requirement("AS-2.2")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_card_is_written_with_llama_cpps_names_shapes_and_metadata_bit_for_bit(
    make_card, model, tmp_path, dtype
) -> None:
    card = make_card("größer", dtype=dtype)
    to_gguf(card, tmp_path / "new" / "card.gguf", model)
    metadata, tensors = read(tmp_path / "new" / "card.gguf")
    assert metadata["general.type"] == "adapter"
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "größer"
    assert metadata["adapter.type"] == "lora"
    assert metadata["adapter.lora.alpha"] == 6.0
    expected = GGMLQuantizationType.F16 if dtype == "float16" else GGMLQuantizationType.F32
    assert len(tensors) == 2 * len(card.weights)
    for module, weights in card.weights.items():
        a, b = (tensors[f"{gguf_name(module)}.lora_{letter}"] for letter in "ab")
        assert a.tensor_type == b.tensor_type == expected
        assert a.shape.tolist() == [weights.in_features, weights.rank]  # GGUF names the fastest dimension first
        assert b.shape.tolist() == [weights.rank, weights.out_features]
        assert np.array_equal(a.data, widen(weights.a).astype(a.data.dtype))
        assert np.array_equal(in_our_order(module, b.data), widen(weights.b).astype(b.data.dtype))


# As llama.cpp's own convert_lora_to_gguf.py was seen to write PEFT adapters of each of these.
@pytest.mark.requirement("AS-2.2")
@pytest.mark.parametrize(
    ("architecture", "name", "interleaved"),
    [
        ("LlamaForCausalLM", "llama", True),
        ("MistralForCausalLM", "llama", True),
        ("SmolLM3ForCausalLM", "smollm3", True),
        ("Qwen2ForCausalLM", "qwen2", False),
        ("Qwen3ForCausalLM", "qwen3", False),
        ("GemmaForCausalLM", "gemma", False),
        ("Gemma2ForCausalLM", "gemma2", False),
        ("Gemma3ForCausalLM", "gemma3", False),
    ],
)
def test_rows_of_q_and_k_are_interleaved_for_the_architectures_that_need_it(
    make_card, model, tmp_path, architecture, name, interleaved
) -> None:
    change(model, architectures=[architecture])
    card = make_card()
    to_gguf(card, tmp_path / "card.gguf", model)
    metadata, tensors = read(tmp_path / "card.gguf")
    assert metadata["general.architecture"] == name
    assert set(tensors) == {f"{gguf_name(module)}.lora_{letter}" for module in card.weights for letter in "ab"}
    q, k, v = (card.weights[f"model.layers.1.self_attn.{layer}_proj"].b for layer in "qkv")
    pairs = [0, 4, 1, 5, 2, 6, 3, 7] if interleaved else range(8)  # dimension i beside its partner i + 4
    for ours, written in ((q, "attn_q"), (k, "attn_k")):
        assert np.array_equal(tensors[f"blk.1.{written}.weight.lora_b"].data[:8], ours[list(pairs)])
    assert np.array_equal(tensors["blk.1.attn_v.weight.lora_b"].data, v)


@pytest.mark.requirement("AS-2.2")
def test_rslora_of_one_rank_is_expressed_by_alpha_alone(make_card, model, tmp_path) -> None:
    card = make_card(rslora=True, rank=4)
    to_gguf(card, tmp_path / "card.gguf", model)
    metadata, tensors = read(tmp_path / "card.gguf")
    assert metadata["adapter.lora.alpha"] == 6.0 * math.sqrt(4)
    module = "model.layers.0.mlp.up_proj"
    assert np.array_equal(tensors[f"{gguf_name(module)}.lora_b"].data, card.weights[module].b)


@pytest.mark.requirement("AS-2.2")
@pytest.mark.parametrize("rslora", [False, True], ids=["plain", "rslora"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_alphas_and_ranks_of_their_own_are_folded_into_b(make_card, model, tmp_path, rslora, dtype) -> None:
    own_alpha, own_rank = "model.layers.1.self_attn.k_proj", "model.layers.2.mlp.down_proj"
    card = make_card(rslora=rslora, dtype=dtype, ranks={own_rank: 7})
    weights = dict(card.weights)
    weights[own_alpha] = replace(weights[own_alpha], alpha=0.7)
    card = replace(card, weights=weights)
    to_gguf(card, tmp_path / "card.gguf", model)
    deltas = scaled_deltas(tmp_path / "card.gguf", card)
    tensors = read(tmp_path / "card.gguf")[1]
    for module, delta in deltas.items():
        expected = our_delta(card, module)
        # One rounding of B to float32, and one of alpha: 2^-24 each; the rest is done in float64.
        np.testing.assert_allclose(delta, expected, rtol=0, atol=2**-22 * np.abs(expected).max())
        untouched = module != own_alpha and (module != own_rank or not rslora)
        b = in_our_order(module, tensors[f"{gguf_name(module)}.lora_b"].data)
        assert np.array_equal(b, card.weights[module].b) == untouched


def test_an_8_bit_file_is_close_and_leaves_what_its_blocks_do_not_fit(make_card, model, tmp_path) -> None:
    card = make_card(rank=4)
    to_gguf(card, tmp_path / "card.gguf", model, quantisation="q8_0")
    metadata, tensors = read(tmp_path / "card.gguf")
    assert (metadata["general.quantization_version"], metadata["general.file_type"]) == (2, 7)
    module = "model.layers.0.self_attn.v_proj"
    a, b = (tensors[f"{gguf_name(module)}.lora_{letter}"] for letter in "ab")
    assert (a.tensor_type, b.tensor_type) == (GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32)
    assert a.shape.tolist() == [32, 4]
    original = card.weights[module].a
    step = np.abs(original).max(axis=1, keepdims=True) / 127
    # Half a step for the 8 bits; the step itself is a float16, off by 2^-11 at most, 127 times over.
    assert (np.abs(dequantize(a.data, a.tensor_type) - original) <= (0.5 + 127 * 2**-11) * step).all()
    with pytest.raises(InvalidAdapter, match="None or one of 'q8_0', 'q6_k', 'q4_k_m'"):
        to_gguf(card, tmp_path / "card.gguf", model, quantisation="q2_k")


@pytest.mark.parametrize("vector", ["magnitude", "lora_bias", "base_bias"])
def test_what_llama_cpp_cannot_apply_is_refused_by_name(make_card, model, tmp_path, vector) -> None:
    card = make_card()
    module = "model.layers.0.mlp.up_proj"
    changed = replace(card.weights[module], **{vector: np.ones(80, np.float32)})
    with pytest.raises(UnsupportedAdapter, match="hold A and B alone") as error:
        to_gguf(replace(card, weights={**card.weights, module: changed}), tmp_path / "card.gguf", model)
    assert error.value.value == {"magnitude": "dora"}.get(vector, vector)


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens", "model.layers.9.mlp.up_proj", "model.adapter"])
def test_layers_that_an_adapter_of_llama_cpp_does_not_have_are_refused(make_card, model, tmp_path, module) -> None:
    weights = LoRAWeights(np.ones((4, 32), np.float32), np.ones((96, 4), np.float32))
    with pytest.raises(InvalidAdapter) as error:
        to_gguf(replace(make_card(), weights={module: weights}), tmp_path / "card.gguf", model)
    assert error.value.value == module


@pytest.mark.parametrize("architectures", [["Phi3ForCausalLM"], ["MixtralForCausalLM"], [], None])
def test_an_architecture_that_is_not_listed_is_refused(make_card, model, tmp_path, architectures) -> None:
    change(model, architectures=architectures)
    with pytest.raises(UnsupportedAdapter, match="LlamaForCausalLM") as error:
        to_gguf(make_card(), tmp_path / "card.gguf", model)
    assert error.value.field == "architectures"


def test_a_base_model_that_does_not_fit_is_named(make_card, tiny_llama, model, tmp_path) -> None:
    target = tmp_path / "card.gguf"
    wider = type(tiny_llama.config).from_dict(tiny_llama.config.to_dict() | {"num_key_value_heads": 4})
    type(tiny_llama)(wider).save_pretrained(model)
    with pytest.raises(InvalidAdapter, match="the base model's layer has 32 outputs"):
        to_gguf(make_card(), target, model)
    change(model, num_key_value_heads=3)
    with pytest.raises(UnsupportedBaseModel, match=r"k_proj\.weight has the shape \[32, 32\], expected \[24, 32\]"):
        to_gguf(make_card(), target, model)
    change(model, num_hidden_layers=None)
    with pytest.raises(UnsupportedBaseModel, match="num_hidden_layers"):
        to_gguf(make_card(), target, model)
    (model / "config.json").write_text("{")
    with pytest.raises(CorruptAdapter, match="not JSON"):
        to_gguf(make_card(), target, model)
    with pytest.raises(AdapterNotFound, match=r"config\.json is missing"):
        to_gguf(make_card(), target, tmp_path / "nowhere")
    assert not target.exists()


def test_a_file_that_cannot_be_finished_leaves_the_old_one(make_card, model, tmp_path, monkeypatch) -> None:
    target = tmp_path / "card.gguf"
    to_gguf(make_card("first"), target, model)

    def full(_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("gguf.GGUFWriter.write_tensors_to_file", full)
    with pytest.raises(OSError, match="no space"):
        to_gguf(make_card("second"), target, model)
    assert read(target)[0]["general.name"] == "first"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["card.gguf"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_numbers_that_folding_would_make_infinite_are_refused(make_card, model, tmp_path) -> None:
    card = make_card(alpha=0.001)
    module = "model.layers.0.mlp.up_proj"
    huge = replace(card.weights[module], b=np.full((80, 4), 3e38, np.float32), alpha=60.0)
    with pytest.raises(InvalidAdapter, match="more than float32 holds"):
        to_gguf(replace(card, weights={**card.weights, module: huge}), tmp_path / "card.gguf", model)


def test_without_the_package_gguf_the_error_says_how_to_get_it(make_card, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match="pip install 'gguf"):
        to_gguf(make_card(), tmp_path / "card.gguf", model)


def test_a_bfloat16_b_that_is_folded_loses_nothing_but_one_rounding(make_card, model, tmp_path) -> None:
    card = make_card(dtype="bfloat16")
    module = "model.layers.0.mlp.up_proj"
    card = replace(card, weights={**card.weights, module: replace(card.weights[module], alpha=7.0)})
    to_gguf(card, tmp_path / "card.gguf", model)
    stored = read(tmp_path / "card.gguf")[1][f"{gguf_name(module)}.lora_b"].data
    exact = widen(card.weights[module].b).astype(np.float64) * 7 / 6
    assert (np.abs(stored - exact) <= np.spacing(np.abs(exact).astype(np.float32)) / 2).all()
    assert not np.array_equal(stored, widen(narrow(exact.astype(np.float32), "bfloat16")))
