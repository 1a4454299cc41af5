"""Which class loads a base model folder, with which attention, and what is said of a folder that none loads."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, CLIPConfig

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
