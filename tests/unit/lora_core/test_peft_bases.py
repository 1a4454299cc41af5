"""PEFT checkpoints beside their base model: its own copies, its names, its vocabulary."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from lora_core import ArrowEngine, InvalidAdapter, UnsupportedAdapter, base_model, check_card
from lora_core.base_model import target_shapes
from lora_core.interop import from_peft
from tests.tiny_configs import SIZES

PROMPT = torch.tensor([[5, 17, 42, 8]])


def saved(folder: Path, name: str = "llama", **changes: Any) -> Any:
    """A model of this architecture with random weights, as loaded from its folder."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**SIZES, **changes})).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def adapter(model: Any, folder: Path, save: dict[str, Any] | None = None, **config: Any) -> Any:
    """An adapter of random matrices, as PEFT saves it; the wrapped model."""
    torch.manual_seed(1)
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **config)).eval()
    wrapped.save_pretrained(folder, **(save or {}))
    return wrapped


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("targets", [["q_proj", "embed_tokens"], ["q_proj", "lm_head"], ["q_proj"]])
@pytest.mark.parametrize("flat", [False, True])
def test_copies_that_are_the_base_models_own_are_accepted_and_others_are_refused_by_name(
    tmp_path: Path, targets: list[str], flat: bool
) -> None:
    model = saved(tmp_path / "base", tie_word_embeddings=True)
    adapter(model, tmp_path / "made", {"save_embedding_layers": True}, target_modules=targets)
    if flat:  # the base model's file spells its names without the prefix
        file = tmp_path / "base" / "model.safetensors"
        save_file(
            {name.removeprefix("model."): array for name, array in load_file(file).items()}, file, {"format": "pt"}
        )
    shapes = target_shapes(tmp_path / "base")
    check_card(from_peft(tmp_path / "made", base_model=tmp_path / "base"), shapes)
    with pytest.raises(UnsupportedAdapter, match="base_model=FOLDER"):
        from_peft(tmp_path / "made")
    file = tmp_path / "made" / "adapter_model.safetensors"
    tensors = load_file(file)
    copied = next(name for name in tensors if name.endswith("embed_tokens.weight") or "base_layer.weight" in name)
    tensors[copied] = tensors[copied] + np.float32(0.5)
    save_file(tensors, file)
    with pytest.raises(UnsupportedAdapter, match="own weights, untrained"):
        from_peft(tmp_path / "made", base_model=shapes)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"], ["q_proj", "lm_head"]])
def test_a_resized_vocabulary_is_named_as_the_cause(tmp_path: Path, targets: list[str]) -> None:
    model = saved(tmp_path / "base")
    model.resize_token_embeddings(101)
    adapter(model, tmp_path / "made", target_modules=targets)
    with pytest.raises(UnsupportedAdapter, match=r"vocabulary is 101, expected 96, .* resized") as error:
        from_peft(tmp_path / "made", base_model=tmp_path / "base")
    assert error.value.field.endswith(" vocabulary")


@pytest.mark.parametrize(
    ("name", "changes", "target"),
    [
        ("llama", {}, "q_proj"),
        ("gpt_neox", {}, "query_key_value"),
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "q_proj"),
        ("qwen3", {"head_dim": 8}, "embed_tokens"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_made_on_the_model_without_its_head_gets_the_names_with_it(
    tmp_path: Path, name: str, changes: dict[str, Any], target: str, tiny_tokenizer: Any
) -> None:
    model = saved(tmp_path / "base", name, **changes)
    bare = AutoModel.from_pretrained(tmp_path / "base", dtype=torch.float32)
    wrapped = adapter(bare, tmp_path / "made", target_modules=[target, "o_proj", "dense"])
    card = from_peft(tmp_path / "made", base_model=tmp_path / "base")
    shapes = target_shapes(tmp_path / "base")
    check_card(card, shapes)
    with torch.no_grad():
        expected = wrapped(PROMPT).last_hidden_state
        tiny_tokenizer.save_pretrained(tmp_path / "base")
        loaded, tokenizer = base_model.load(tmp_path / "base")
        engine = ArrowEngine(loaded, tokenizer, slots=1, max_rank=4)
        engine.load(card, "made")
        with engine.rows(["made"]):
            found = getattr(loaded, loaded.base_model_prefix)(PROMPT).last_hidden_state
        plain = getattr(model, model.base_model_prefix)(PROMPT).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (plain - expected).abs().max() > 1e-3


def renamed(folder: Path, change: dict[str, str]) -> None:
    file = folder / "adapter_model.safetensors"
    (old, new), *_ = change.items()
    save_file({name.replace(old, new): array for name, array in load_file(file).items()}, file)


def test_names_of_the_multimodal_class_are_those_of_the_text_class_and_no_image_towers(tmp_path: Path) -> None:
    model = saved(tmp_path / "base")
    adapter(copy.deepcopy(model), tmp_path / "made", target_modules=["q_proj", "v_proj"])
    names = set(from_peft(tmp_path / "made").weights)
    renamed(tmp_path / "made", {"model.model.layers": "model.model.language_model.layers"})
    assert set(from_peft(tmp_path / "made", base_model=tmp_path / "base").weights) == names
    renamed(tmp_path / "made", {"language_model.layers": "vision_tower.encoder.layers"})
    card = from_peft(tmp_path / "made", base_model=tmp_path / "base")
    with pytest.raises(InvalidAdapter, match=r"vision_tower.*such as model\.layers\.0"):
        check_card(card, target_shapes(tmp_path / "base"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_name_that_a_head_has_in_older_versions_is_the_heads(tmp_path: Path) -> None:
    adapter(saved(tmp_path / "base", "gpt_neox"), tmp_path / "made", target_modules=["lm_head"])
    renamed(tmp_path / "made", {"model.lm_head.": "model.embed_out."})
    card = from_peft(tmp_path / "made", base_model=tmp_path / "base")
    assert check_card(card, target_shapes(tmp_path / "base")).modules == ("lm_head",)


def test_a_module_that_is_something_else_in_this_model_is_refused_with_what_it_is(tmp_path: Path) -> None:
    model = saved(tmp_path / "llama")
    adapter(model, tmp_path / "made", target_modules=["gate_proj", "up_proj"])
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    saved(tmp_path / "base", "qwen3_moe", **experts)
    card = from_peft(tmp_path / "made", base_model=tmp_path / "base")
    with pytest.raises(InvalidAdapter, match="part of the stacked experts"):
        check_card(card, target_shapes(tmp_path / "base"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_biases_of_norms_must_be_the_base_models_own(tmp_path: Path) -> None:
    model = saved(tmp_path / "base", "gpt_neox")
    wrapped = adapter(model, tmp_path / "made", target_modules=["dense"], bias="all")
    card = from_peft(tmp_path / "made", base_model=tmp_path / "base")
    assert {module.rpartition(".")[2] for module in card.weights} == {"dense"}, "nothing was trained beside the layers"
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if name.endswith("dense_h_to_4h.bias"):
                parameter.add_(1)
    wrapped.save_pretrained(tmp_path / "made")
    card = from_peft(tmp_path / "made", base_model=tmp_path / "base")
    assert "gpt_neox.layers.0.mlp.dense_h_to_4h" in card.weights
    check_card(card, target_shapes(tmp_path / "base"))
    file = tmp_path / "made" / "adapter_model.safetensors"
    tensors = load_file(file)
    norm = next(name for name in tensors if name.endswith("layernorm.bias"))
    save_file(tensors | {norm: tensors[norm] + np.float32(1)}, file)
    with pytest.raises(UnsupportedAdapter, match="not to norms"):
        from_peft(tmp_path / "made", base_model=tmp_path / "base")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "targets"), [("gpt_neox", ["embed_in", "lm_head"]), ("mamba", ["embeddings"])])
def test_embeddings_of_any_name_are_accepted_and_are_no_linear_layers(
    tmp_path: Path, name: str, targets: list[str]
) -> None:
    adapter(saved(tmp_path / "base", name), tmp_path / "made", target_modules=targets)
    card = from_peft(tmp_path / "made", base_model=tmp_path / "base")
    assert check_card(card, target_shapes(tmp_path / "base")).target_modules == tuple(sorted(targets))
    assert not set(targets) & {name.rpartition(".")[2] for name in base_model.linear_shapes(tmp_path / "base")}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_embedding_adapter_whose_matrices_are_none_is_refused_by_their_shape(tmp_path: Path) -> None:
    adapter(saved(tmp_path / "base", "gpt_neox"), tmp_path / "made", target_modules=["embed_in"])
    file = tmp_path / "made" / "adapter_model.safetensors"
    name = "base_model.model.gpt_neox.embed_in.lora_embedding_A"
    save_file(load_file(file) | {name: np.array(1, np.float32)}, file)
    with pytest.raises(InvalidAdapter, match="2 dimensions"):
        from_peft(tmp_path / "made", base_model=tmp_path / "base")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_that_was_converted_as_the_refusal_asks_is_accepted(tmp_path: Path) -> None:
    model = saved(tmp_path / "base")
    adapter(model, tmp_path / "made", target_modules=["q_proj"])
    path = tmp_path / "made" / "adapter_config.json"
    config = json.loads(path.read_text())
    converted = {
        "corda_config": {"corda_method": "ipm"},
        "lora_ga_config": {"bsz": 2},
        "loftq_config": {"loftq_bits": 4},
    }
    path.write_text(json.dumps(config | converted | {"init_lora_weights": True}))
    assert from_peft(tmp_path / "made").rank == 4
    path.write_text(json.dumps(config | converted | {"init_lora_weights": "corda"}))
    with pytest.raises(UnsupportedAdapter, match="path_initial_model_for_weight_conversion"):
        from_peft(tmp_path / "made")
