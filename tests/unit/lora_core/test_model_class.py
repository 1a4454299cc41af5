"""Which class loads a base model folder, with which attention, and what is said of a folder that none loads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    BertConfig,
    BertModel,
    CLIPConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedModel,
)

from lora_core.description import describe
from lora_core.errors import UnsupportedBaseModel
from lora_core.model_class import class_of, load_model
from tests.tiny_configs import IMAGE_TEXT, tiny_config

pytestmark = pytest.mark.unit

IDS = torch.tensor([[5, 6, 7]])


def test_a_model_computes_attention_as_its_class_chooses(tiny_llama, tmp_path: Path) -> None:
    tiny_llama.save_pretrained(tmp_path)
    assert load_model(tmp_path, torch.float32).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("named", ["flash_attention_2", "triton"])
def test_attention_that_a_configuration_names_and_that_is_not_here_becomes_eager(
    tiny_llama, tmp_path: Path, named: str
) -> None:
    tiny_llama.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_bytes()) | {"_attn_implementation": named}))
    model = load_model(tmp_path, torch.float32)
    assert model.config._attn_implementation == "eager"
    torch.testing.assert_close(model(input_ids=IDS).logits, tiny_llama(input_ids=IDS).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_type", IMAGE_TEXT)
def test_a_model_of_images_and_text_is_loaded_whole(model_type: str) -> None:
    assert class_of(tiny_config(model_type)) is AutoModelForImageTextToText


def test_a_model_that_writes_no_text_is_refused_in_one_sentence(tmp_path: Path) -> None:
    CLIPConfig().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedBaseModel, match=r"no language model from config.json .model_type 'clip'") as refused:
        load_model(tmp_path, torch.float32)
    assert len(str(refused.value)) < 200


def test_a_kind_of_model_that_transformers_does_not_know_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gargantua"}')
    with pytest.raises(UnsupportedBaseModel, match="gargantua") as refused:
        load_model(tmp_path, torch.float32)
    assert len(str(refused.value)) < 600


SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}


def llama_config(*, tied: bool = False) -> LlamaConfig:
    return LlamaConfig(**SIZES, num_labels=1, pad_token_id=0, tie_word_embeddings=tied)


@pytest.mark.parametrize(
    ("made", "without", "lacks"),
    [
        (lambda: LlamaForSequenceClassification(llama_config()), "score", "lm_head.weight;"),
        (lambda: LlamaModel(llama_config()), "", "lm_head.weight;"),
        (lambda: LlamaForCausalLM(llama_config()), "layers.1.mlp", r"model.layers.1.mlp.down_proj.weight, "),
        (lambda: LlamaForCausalLM(llama_config()), "layers.1.", "and 6 more;"),
        (lambda: LlamaForCausalLM(llama_config(tied=True)), "embed_tokens", r"model.embed_tokens.weight"),
        (lambda: BertModel(BertConfig(**SIZES)), "", r"cls.predictions"),
    ],
)
def test_a_folder_that_lacks_weights_is_refused_with_their_names_when_described_and_when_loaded(
    tmp_path: Path, made: Callable[[], PreTrainedModel], without: str, lacks: str
) -> None:
    made().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {name: each for name, each in load_file(file).items() if not without or without not in name}
    save_file(kept, file, {"format": "pt"})
    for refusing in (lambda: describe(tmp_path), lambda: load_model(tmp_path, torch.float32)):
        with pytest.raises(UnsupportedBaseModel, match=f"lacks weights of .*{lacks}") as refused:
            refusing()
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("bare", [False, True])
def test_a_head_that_is_tied_to_the_embedding_is_not_missing(tmp_path: Path, *, bare: bool) -> None:
    whole = LlamaForCausalLM(llama_config(tied=True))
    (whole.model if bare else whole).save_pretrained(tmp_path)
    describe(tmp_path)
    torch.testing.assert_close(load_model(tmp_path, torch.float32)(input_ids=IDS).logits, whole(input_ids=IDS).logits)


def test_a_weight_of_another_shape_than_the_configuration_gives_is_refused_with_both(tmp_path: Path) -> None:
    LlamaForCausalLM(llama_config()).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_bytes()) | {"vocab_size": 100}))
    for refusing in (lambda: describe(tmp_path), lambda: load_model(tmp_path, torch.float32)):
        with pytest.raises(UnsupportedBaseModel, match=r"has the shape \[96, 32\], expected \[100, 32\]"):
            refusing()
