"""What a base model's layers are: as transformers builds them, however its files spell them."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lora_core import description
from lora_core.base_model import linear_shapes, load, revision, target_shapes
from lora_core.description import FILE, describe, write_description
from lora_core.errors import AdapterNotFound, CorruptAdapter, NotDescribed, UnsupportedBaseModel
from lora_core.layers import dimensions
from lora_core.model_class import class_of, load_model
from lora_core.model_files import layout_digest
from tests.tiny_configs import SIZES, tiny_config

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    description._described.cache_clear()
    return tmp_path / "cache" / "lorafleet" / "layers"


def saved(folder: Path, name: str, **changes: Any) -> Path:
    config = AutoConfig.for_model(name, **{**SIZES, **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "sys", SimpleNamespace(modules={}))
    monkeypatch.setattr(description, "find_spec", lambda _: None)


def test_names_are_those_of_the_loaded_model_where_the_files_lack_the_prefix(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "qwen3", head_dim=8, tie_word_embeddings=True)
    usual = dict(target_shapes(base))
    file = base / "model.safetensors"
    save_file({name.removeprefix("model."): each for name, each in load_file(file).items()}, file, {"format": "pt"})
    assert "layers.0.mlp.up_proj.weight" in load_file(file)
    assert target_shapes(base) == usual
    assert usual["model.layers.0.self_attn.k_proj"] == (16, 32)
    assert (usual["model.embed_tokens"], usual["lm_head"]) == ((32, 96), (96, 32))
    assert describe(base).tied == (("lm_head", "model.embed_tokens"),)
    assert "lm_head" not in linear_shapes(base)


@pytest.mark.parametrize(
    ("name", "changes", "decoder", "embedding"),
    [
        ("phi3", {}, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}, "model.embed_tokens"),
        ("gpt_neox", {}, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}, "gpt_neox.embed_in"),
        ("qwen3_moe", EXPERTS, {"q_proj", "k_proj", "v_proj", "o_proj"}, "model.embed_tokens"),
        ("mamba", {}, {"in_proj", "x_proj", "dt_proj", "out_proj"}, "backbone.embeddings"),
        (
            "gemma2",
            {"head_dim": 8},
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
            "model.embed_tokens",
        ),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, set(), "transformer.wte"),
    ],
)
def test_every_kind_of_layer_is_told_apart(
    tmp_path: Path, name: str, changes: dict[str, Any], decoder: set[str], embedding: str
) -> None:
    found = describe(saved(tmp_path / name, name, **changes))
    assert {one.rpartition(".")[2] for one, layer in found.layers.items() if layer.decoder} == decoder
    assert found.embedding == embedding
    assert found.model_type == name


def test_what_cannot_be_adapted_is_named_in_words(tmp_path: Path) -> None:
    experts = describe(saved(tmp_path / "moe", "qwen3_moe", **EXPERTS))
    assert experts.what_is("gate_proj") == "part of the stacked experts (experts.gate_up_proj)"
    assert experts.what_is("down_proj") == "part of the stacked experts (experts.down_proj)"
    assert experts.what_is("gate") == "a router (Qwen3MoeTopKRouter)"
    assert experts.what_is("ghost") == ""
    assert "Conv1D" in describe(saved(tmp_path / "gpt2", "gpt2", n_embd=32, n_layer=1, n_head=4)).what_is("c_attn")
    assert describe(saved(tmp_path / "phi3", "phi3")).what_is("v_proj") == "fused into qkv_proj"
    inkling = tiny_config("inkling_text")
    class_of(inkling).from_config(inkling).save_pretrained(tmp_path / "inkling")
    assert "no plain input embedding (InklingNormedEmbedding)" in describe(tmp_path / "inkling").what_is("embed_tokens")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8"])
def test_a_packed_model_has_the_shapes_that_it_computes_with(tmp_path: Path, method: str) -> None:
    base = saved(tmp_path / "base", "llama")
    usual = dict(target_shapes(base))
    file = base / "model.safetensors"
    packed = {n: torch.zeros(512, 1, dtype=torch.uint8) if "_proj" in n else t for n, t in load_file(file).items()}
    save_file(packed, file, {"format": "pt"})
    config = json.loads((base / "config.json").read_bytes())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    assert target_shapes(base) == usual
    assert describe(base).quantisation == method


@pytest.mark.parametrize("model_type", ["llava", "mistral3", "qwen2_5_vl", "qwen3_vl"])
def test_a_model_of_images_and_text_has_its_text_decoder_as_targets(model_type: str, tmp_path: Path) -> None:
    config = tiny_config(model_type)
    made = class_of(config).from_config(config)
    made.save_pretrained(tmp_path)
    found = describe(tmp_path)
    decoder = [name for name, layer in found.layers.items() if layer.decoder]
    assert decoder
    assert all(name.startswith("model.language_model.layers.") for name in decoder)
    own = {name: dimensions(module) for name, module in made.named_modules() if isinstance(module, nn.Linear)}
    assert found.named(["linear", "head"]) == own


def test_a_model_with_a_kind_of_linear_of_its_own_is_described_with_it(tmp_path: Path) -> None:
    config = tiny_config("falcon")
    class_of(config).from_config(config).save_pretrained(tmp_path)
    assert "dense_h_to_4h" in describe(tmp_path).short_names


def test_a_multimodal_model_is_described_by_its_text_decoder_or_refused_in_a_sentence(tmp_path: Path) -> None:
    text = {**SIZES, "head_dim": 8}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gemma3", text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    ).save_pretrained(tmp_path / "gemma3")
    found = describe(tmp_path / "gemma3")
    assert {name.split(".layers.")[0] for name, layer in found.layers.items() if layer.decoder} == {
        "model.language_model"
    }
    assert any(name.startswith("model.vision_tower.") for name in found.layers)
    refused = shutil.copytree(tmp_path / "gemma3", tmp_path / "clip")
    AutoConfig.for_model("clip", architectures=["CLIPModel"]).save_pretrained(refused)
    with pytest.raises(UnsupportedBaseModel, match=r"no language model from CLIPModel \(model_type 'clip'\)") as error:
        describe(refused)
    assert len(str(error.value)) < 400
    with pytest.raises(UnsupportedBaseModel, match="no language model from CLIPModel"):
        load(refused)
    (refused / "config.json").write_text('{"model_type": "nobodys"}')
    with pytest.raises(UnsupportedBaseModel, match="nobodys"):
        describe(refused)
    with pytest.raises(AdapterNotFound):
        describe(tmp_path)


def test_it_is_made_once_for_a_layout_and_read_by_its_digest(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = saved(tmp_path / "base", "llama")
    found = describe(base)
    assert [file.stem for file in cache.iterdir()] == [layout_digest(base)] == [found.digest]
    copy = shutil.copytree(base, tmp_path / "copy")
    without_torch(monkeypatch)
    assert describe(copy) == found, "another folder of the same model is read from the cache"
    config = json.loads((copy / "config.json").read_bytes())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(NotDescribed, match="lorafleet models describe"):
        describe(copy)


def test_a_service_without_torch_reads_the_description_in_the_folder(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = saved(tmp_path / "base", "llama")
    assert write_description(base) == base / FILE
    shutil.rmtree(cache)
    description._described.cache_clear()
    without_torch(monkeypatch)
    assert len(describe(base).layers) == 2 * 7 + 2
    (base / FILE).write_text('{"format": 9}')
    description._described.cache_clear()
    with pytest.raises(NotDescribed):
        describe(base)


@pytest.mark.heavy
def test_a_process_without_torch_has_it_made_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = saved(tmp_path / "base", "llama")
    here = describe(base)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    description._described.cache_clear()
    monkeypatch.delitem(description.sys.modules, "torch")
    assert describe(base) == here
    (base / "config.json").write_text('{"model_type": "nobodys"}')
    with pytest.raises(UnsupportedBaseModel, match="nobodys"):
        describe(base)


def test_a_file_that_the_index_names_and_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = AutoConfig.for_model("llama", **SIZES)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path, max_shard_size="20KB")
    describe(tmp_path)
    lost = sorted(tmp_path.glob("model-*.safetensors"))[-1]
    lost.unlink()
    for refusing in (lambda: describe(tmp_path), lambda: load_model(tmp_path, torch.float32)):
        with pytest.raises(UnsupportedBaseModel, match=f"lacks {lost.name}, which model.safetensors.index.json names"):
            refusing()
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(UnsupportedBaseModel, match="expected an object weight_map"):
        describe(tmp_path)


def test_a_git_lfs_pointer_is_told_what_to_do(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "llama")
    (base / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    for refusing in (lambda: describe(base), lambda: load_model(base, torch.float32)):
        with pytest.raises(CorruptAdapter, match=r"model.safetensors: a git-lfs pointer.* run `git lfs pull`"):
            refusing()


def test_pickled_weights_are_never_read_and_it_says_so(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "llama")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    for refusing in (describe, revision):
        with pytest.raises(AdapterNotFound, match=r"pytorch_model.bin is never read.*convert it to safetensors"):
            refusing(base)
