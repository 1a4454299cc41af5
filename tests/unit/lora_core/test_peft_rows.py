"""Trained tokens of PEFT (`trainable_token_indices`): read as LoRA matrices that give exactly PEFT's logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lora_core.errors import InvalidAdapter, UnsupportedAdapter
from lora_core.interop import from_peft
from lora_core.model_class import class_of, load_model
from lora_core.slots.slot_bank import SlotBank
from tests.tiny_configs import tiny_config

pytestmark = pytest.mark.unit

IDS = torch.arange(5, 29).view(4, 6)


def saved(folder: Path, model_type: str, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = tiny_config(model_type)
    for name, value in changes.items():
        setattr(config, name, value)
    class_of(config).from_config(config).save_pretrained(folder)
    return folder


def trained(base: Path, folder: Path, **options: Any) -> torch.Tensor:
    """An adapter with random matrices and rows, saved by PEFT; the logits that PEFT gives with it."""
    torch.manual_seed(1)
    model: Any = load_model(base, torch.float32)
    targets = options.pop("target_modules", ["q_proj"])
    config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, target_modules=targets, **options)
    wrapped = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, rows in wrapped.named_parameters():
            if "trainable_tokens_delta" in name:
                rows.normal_()
    wrapped.save_pretrained(str(folder))
    with torch.inference_mode():
        logits: torch.Tensor = wrapped(input_ids=IDS).logits
    return logits


@pytest.mark.requirement("LI-2.6")
@pytest.mark.parametrize(
    ("model_type", "tied", "options"),
    [
        ("llama", False, {"trainable_token_indices": [5, 9, 20]}),
        ("llama", True, {"trainable_token_indices": [5, 9, 20]}),
        ("llama", True, {"trainable_token_indices": {"embed_tokens": [7]}, "use_rslora": True}),
        ("llama", False, {"trainable_token_indices": {"embed_tokens": [5], "lm_head": [7, 11]}}),
        ("gemma2", True, {"trainable_token_indices": [5, 9, 20, 24, 26]}),
        ("gpt_neox", False, {"trainable_token_indices": {"embed_in": [8]}, "target_modules": ["query_key_value"]}),
    ],
)
def test_trained_tokens_give_what_they_give_in_peft(
    tmp_path: Path, model_type: str, tied: bool, options: dict[str, Any]
) -> None:
    base = saved(tmp_path / "base", model_type, tie_word_embeddings=tied)
    wanted = trained(base, tmp_path / "made", **options)
    model = load_model(base, torch.float32).requires_grad_(False)
    plain = model(input_ids=IDS).logits
    assert (wanted - plain).abs().max() > 0.1
    bank = SlotBank(model, slots=1, max_rank=8)
    slot = bank.put(from_peft(tmp_path / "made", base_model=base))
    with bank.rows(bank.plan([[(slot, 1.0)], [], [(slot, 1.0)], []])):
        found = model(input_ids=IDS).logits
    torch.testing.assert_close(found[[0, 2]], wanted[[0, 2]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[[1, 3]], plain[[1, 3]], atol=1e-5, rtol=0)


def test_trained_tokens_without_their_base_model_are_refused_by_name(tmp_path: Path) -> None:
    trained(saved(tmp_path / "base", "llama"), tmp_path / "made", trainable_token_indices=[5])
    with pytest.raises(UnsupportedAdapter, match="base_model=FOLDER") as error:
        from_peft(tmp_path / "made")
    assert error.value.field == "trainable_token_indices"


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([5, 5], "different token ids below 128"),
        ([5, 128], "different token ids below 128"),
        ([5], r"\[1, 64\], a row for each"),
        ("5", "the token ids"),
        (None, "the token ids"),
    ],
)
def test_indices_that_are_not_the_rows_of_the_file_are_refused_by_name(
    tmp_path: Path, indices: object, expected: str
) -> None:
    base = saved(tmp_path / "base", "llama")
    trained(base, tmp_path / "made", trainable_token_indices=[5, 9])
    file = tmp_path / "made" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"trainable_token_indices": indices}))
    with pytest.raises(InvalidAdapter, match=expected):
        from_peft(tmp_path / "made", base_model=base)
