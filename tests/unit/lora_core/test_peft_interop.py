"""PEFT checkpoints, proved by PEFT's own runtime; and what is refused, by name."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, MontecloraConfig, PeftModel, VeloraConfig, get_peft_model
from safetensors.numpy import load_file, save_file

from lora_core import (
    AdapterNotFound,
    ArrowEngine,
    CorruptAdapter,
    InvalidAdapter,
    LoRAFormat,
    LoRAManager,
    UnsupportedAdapter,
    check_card,
)
from lora_core.array import bits
from lora_core.base_model import target_shapes
from lora_core.interop import from_peft, to_peft

PROMPT = torch.tensor([[5, 17, 42, 8]])


def trained(model, folder: Path, **config):
    """A checkpoint that PEFT itself made and saved, with B other than zero; and the logits it gives."""
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]} | config
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "magnitude" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
            elif "lora_" in name or (parameter.requires_grad and "bias" in name):
                parameter.normal_(0, 0.2)
    peft.save_pretrained(folder)
    with torch.no_grad():
        return peft.eval()(PROMPT).logits


VARIANTS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "all-linear": {"target_modules": "all-linear"},
    "rank_pattern": {"rank_pattern": {"q_proj": 7, "model.layers.1.mlp.down_proj": 2}},
    "alpha_pattern": {"alpha_pattern": {r"layers\.0\..*_proj": 3}, "lora_alpha": 5},
    "dora": {"use_dora": True},
    "dora with rslora and patterns": {"use_dora": True, "use_rslora": True, "rank_pattern": {"v_proj": 6}},
    "lora_bias": {"lora_bias": True},
    "bias of all": {"bias": "all"},
    "bias of adapted": {"bias": "lora_only"},
    "dora beside biases": {"use_dora": True, "bias": "all"},
    "output head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "embedding tied to the head": {"target_modules": ["embed_tokens", "v_proj"], "ensure_weight_tying": True},
    "velora": {"velora_config": VeloraConfig(num_groups=8)},
    "monteclora": {"monteclora_config": MontecloraConfig()},
    "rank above the narrower side": {"r": 24, "target_modules": ["k_proj", "down_proj"]},
    "embedding and head with dora": {"target_modules": ["embed_tokens", "lm_head", "k_proj"], "use_dora": True},
}


@pytest.fixture
def base(request, tiny_llama, tiny_qwen):
    """Biases need a model that has some."""
    return tiny_qwen if "bias" in str(request.node.callspec.params["config"]) else tiny_llama


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.requirement("LI-2.2", "LI-2.6", "LI-9.4", "LI-9.5")
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_a_checkpoint_made_by_peft_gives_pefts_logits_in_slots_in_layers_merged_and_back_in_peft(
    base, tiny_tokenizer, tmp_path, config
) -> None:
    expected = trained(base, tmp_path / "made", **config)
    base.save_pretrained(tmp_path / "base")
    card = from_peft(tmp_path / "made", "made", base_model=tmp_path / "base")
    check_card(card, target_shapes(tmp_path / "base"))
    LoRAFormat.save(card, tmp_path / "card.arrow")
    loaded = LoRAFormat.load(tmp_path / "card.arrow")

    to_peft(loaded, tmp_path / "back")
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "back").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(PROMPT).logits, expected, atol=1e-5, rtol=0)
        plain = base(PROMPT).logits
        assert (plain - expected).abs().max() > 0.01, "an adapter without effect proves nothing"

    manager = LoRAManager(base)
    manager.apply(loaded)
    with torch.no_grad():
        torch.testing.assert_close(base(PROMPT).logits, expected, atol=1e-5, rtol=0)
    manager.remove("made")

    engine = ArrowEngine(base, tiny_tokenizer, slots=2, max_rank=24)
    engine.load(loaded)
    with engine.rows(["made"]):
        torch.testing.assert_close(base(PROMPT).logits, expected, atol=1e-5, rtol=0)
    engine.merge("made")
    with engine.rows(["made"]):
        torch.testing.assert_close(base(PROMPT).logits, expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        assert torch.equal(base(PROMPT).logits, plain)
    back = from_peft(tmp_path / "back").weights
    for module, weights in card.weights.items():
        for name, array in weights.arrays.items():
            assert np.array_equal(bits(array), bits(back[module].arrays[name]))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "tensor"),
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
        ({"rank_pattern": {"(?<=q)_proj": 2}}, "rank_pattern"),
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


def test_other_files_and_the_checkpoints_below_are_left_alone(checkpoint) -> None:
    before = from_peft(checkpoint).parameters
    for inner in ("ref", "checkpoint-10"):
        (checkpoint / inner).mkdir()
        (checkpoint / inner / "adapter_config.json").write_text("{")
    for name in ("training_args.bin", "optimizer.pt", "tokenizer.json", "README.md"):
        (checkpoint / name).write_bytes(b"\x80")
    assert from_peft(checkpoint).parameters == before


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
