"""PEFT checkpoints, proved by PEFT's own runtime; and what is refused, by name."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file

from lora_core import AdapterNotFound, CorruptAdapter, InvalidAdapter, LoRAFormat, UnsupportedAdapter
from lora_core.array import bits
from lora_core.interop import from_peft, to_peft

PROMPT = torch.tensor([[5, 17, 42, 8]])


def trained(model, folder: Path, **config):
    """A checkpoint that PEFT itself made and saved, with B other than zero; and the logits it gives."""
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]} | config
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name or "bias" in name:
                parameter.normal_(0, 0.2)
    peft.save_pretrained(folder)
    with torch.no_grad():
        return peft.eval()(PROMPT).logits


@pytest.mark.requirement("LI-9.4", "LI-9.5")
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"target_modules": "all-linear"},
        {"rank_pattern": {"q_proj": 7, "model.layers.1.mlp.down_proj": 2}},
        {"alpha_pattern": {r"layers\.0\..*_proj": 3}, "lora_alpha": 5},
    ],
    ids=["plain", "rslora", "all-linear", "rank_pattern", "alpha_pattern"],
)
def test_a_checkpoint_made_by_peft_gives_pefts_logits_through_our_file_and_back(
    tiny_llama, tiny_tokenizer, tmp_path, config
) -> None:
    from lora_core import ArrowEngine

    expected = trained(tiny_llama, tmp_path / "made", **config)
    card = from_peft(tmp_path / "made", "made")
    LoRAFormat.save(card, tmp_path / "card.arrow")
    loaded = LoRAFormat.load(tmp_path / "card.arrow")
    to_peft(loaded, tmp_path / "back")
    again = PeftModel.from_pretrained(copy.deepcopy(tiny_llama), tmp_path / "back").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(PROMPT).logits, expected, atol=1e-5, rtol=0)
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=1, max_rank=8)
    engine.load(loaded)
    ours = engine.probe(PROMPT[0].tolist(), "made", top=96)
    torch.testing.assert_close(torch.tensor(ours.logits), expected[0, -1, list(ours.token_ids)], atol=1e-5, rtol=0)
    for module, weights in card.weights.items():
        back = from_peft(tmp_path / "back").weights[module]
        assert np.array_equal(bits(weights.a), bits(back.a))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "tensor"),
        ({"target_modules": ["q_proj", "lm_head"]}, "tensor"),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
    ],
)
def test_what_peft_can_express_and_we_cannot_is_refused_by_name(tiny_llama, tmp_path, config, field) -> None:
    trained(tiny_llama, tmp_path / "made", **config)
    with pytest.raises(UnsupportedAdapter) as error:
        from_peft(tmp_path / "made")
    assert error.value.field == field


@pytest.fixture
def checkpoint(tiny_llama, tmp_path) -> Path:
    trained(tiny_llama, tmp_path / "made")
    return tmp_path / "made"


def change(checkpoint: Path, **settings: object) -> None:
    path = checkpoint / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"a_setting_of_tomorrow": 1}, "a_setting_of_tomorrow"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"rank_pattern": {"(a+)+$": 2}}, "rank_pattern"),
        ({"r": "many"}, "r"),
        ({"r": 5}, "model.layers.0.mlp.down_proj rank"),
        ({"lora_alpha": -1}, "alpha"),
    ],
)
def test_a_configuration_that_we_cannot_follow_is_refused_by_field(checkpoint, settings, field) -> None:
    change(checkpoint, **settings)
    with pytest.raises(InvalidAdapter) as error:
        from_peft(checkpoint)
    assert error.value.field == field


def test_a_pickled_checkpoint_is_refused_unopened(checkpoint, tmp_path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))

    (checkpoint / "adapter_model.safetensors").unlink()
    (checkpoint / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UnsupportedAdapter, match="pickle is never loaded"):
        from_peft(checkpoint)
    assert not (tmp_path / "exploded").exists()


def test_a_leaked_reference_adapter_is_refused(checkpoint) -> None:
    weights = load_file(checkpoint / "adapter_model.safetensors")
    leaked = {name.replace("lora_A.weight", "lora_A.ref.weight"): array for name, array in weights.items()}
    save_file(weights | leaked, checkpoint / "adapter_model.safetensors")
    with pytest.raises(UnsupportedAdapter, match="'ref'"):
        from_peft(checkpoint)
    save_file(weights, checkpoint / "adapter_model.safetensors")
    (checkpoint / "ref").mkdir()
    (checkpoint / "ref" / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedAdapter, match="ref/"):
        from_peft(checkpoint)


def test_half_a_pair_of_matrices_is_refused(checkpoint) -> None:
    weights = load_file(checkpoint / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, checkpoint / "adapter_model.safetensors")
    with pytest.raises(InvalidAdapter, match="lora_A and lora_B"):
        from_peft(checkpoint)


def test_a_missing_checkpoint_is_named(tmp_path) -> None:
    with pytest.raises(AdapterNotFound, match=r"adapter_config\.json is missing"):
        from_peft(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:5],
        lambda data: (2**63).to_bytes(8, "little") + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: data.replace(b"[4,32]", b"[9,99]", 1),
    ],
    ids=["cut", "longer", "stub", "huge header", "no JSON", "lying shape"],
)
def test_a_damaged_safetensors_file_is_refused(checkpoint, damage) -> None:
    path = checkpoint / "adapter_model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptAdapter):
        from_peft(checkpoint)
