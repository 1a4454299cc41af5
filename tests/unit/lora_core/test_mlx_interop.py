"""mlx-lm's adapters, proved by the logits that MLX itself gives with them; and what is refused, by name.

The fixture was trained and recorded with mlx-lm on a CPU by tests/fixtures/mlx/make.py. `make test-mlx` runs the same
script anew, with another seed, and compares with the MLX that it has just installed.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from lora_core import AdapterNotFound, CorruptAdapter, InvalidAdapter, LoRACard, LoRAManager, UnsupportedAdapter
from lora_core.array import bits, narrow
from lora_core.format.safetensors_file import write_weights
from lora_core.interop import from_mlx

FIXTURE = Path(__file__).parents[2] / "fixtures" / "mlx"
MLX_PYTHON = os.environ.get("LORAFLEET_MLX_PYTHON", "")

# Both sides compute in float32 and differ in the order of their sums alone: 1.4e-6 was seen, on logits of up to 3. The
# adapters move the logits by more than 3, so anything applied wrongly is off by far more than this.
TOLERANCE = 2e-5
EFFECT = 1.0


def injected(model: nn.Module, card: LoRACard) -> None:
    LoRAManager(model).apply(card)


def merged(model: nn.Module, card: LoRACard) -> None:
    """What a card means, written out: W + scaling · BA, and with DoRA its rows scaled to the lengths `magnitude`."""
    for module, own in card.weights.items():
        weight = model.get_submodule(module).weight
        weight += torch.tensor(card.scaling(module) * (own.b @ own.a))
        if own.magnitude is not None:
            weight *= (torch.tensor(own.magnitude) / weight.norm(dim=1)).unsqueeze(1)


def assert_gives_mlx_logits(folder: Path, adapter: str, apply: Callable[[nn.Module, LoRACard], None]) -> None:
    record = json.loads((folder / "logits.json").read_text())
    base, expected = torch.tensor(record["logits"][""]), torch.tensor(record["logits"][adapter])
    assert (expected - base).abs().max() > EFFECT
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    prompt = torch.tensor([record["prompt"]])
    with torch.no_grad():
        torch.testing.assert_close(model(prompt).logits[0], base, atol=TOLERANCE, rtol=0)
        apply(model, from_mlx(folder / adapter, folder / "model"))
        torch.testing.assert_close(model(prompt).logits[0], expected, atol=TOLERANCE, rtol=0)


WAYS = [(adapter, apply) for adapter in ("lora", "dora", "last_layer") for apply in (injected, merged)]


@pytest.mark.requirement("AS-2.1")
@pytest.mark.parametrize(("adapter", "apply"), WAYS)
def test_an_adapter_trained_by_mlx_gives_the_logits_that_mlx_recorded(adapter, apply) -> None:
    assert_gives_mlx_logits(FIXTURE, adapter, apply)


@pytest.fixture(scope="module")
def freshly_made(tmp_path_factory) -> Path:
    """Model, adapters and logits made just now by a live MLX."""
    if not MLX_PYTHON:
        pytest.skip("no MLX here: `make test-mlx` installs it and sets LORAFLEET_MLX_PYTHON")
    folder = tmp_path_factory.mktemp("mlx")
    command = [MLX_PYTHON, str(FIXTURE / "make.py"), str(folder), "23"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=240)
    return folder


@pytest.mark.heavy
@pytest.mark.requirement("AS-2.1")
@pytest.mark.parametrize(("adapter", "apply"), WAYS)
def test_an_adapter_trained_just_now_gives_the_logits_of_the_live_mlx(freshly_made, adapter, apply) -> None:
    seed = json.loads((freshly_made / "logits.json").read_text())["seed"]
    assert seed != json.loads((FIXTURE / "logits.json").read_text())["seed"]
    assert_gives_mlx_logits(freshly_made, adapter, apply)


@pytest.mark.requirement("AS-2.1")
def test_what_mlx_says_of_an_adapter_is_kept() -> None:
    card = from_mlx(FIXTURE / "last_layer", FIXTURE / "model")
    assert (card.name, card.rank, card.alpha, card.rslora) == ("last_layer", 3, 60.0, False)
    assert card.scaling("model.layers.1.self_attn.q_proj") == 20.0
    assert sorted(card.weights) == ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]
    assert card.target_modules == ("q_proj", "v_proj")
    assert card.metadata["mlx.num_layers"] == "1"
    assert from_mlx(FIXTURE / "dora", FIXTURE / "model", "renamed").name == "renamed"


def test_matrices_are_transposed_and_views_of_the_file_where_it_is_aligned(adapter, model) -> None:
    path = adapter / "adapters.safetensors"
    stored = load_file(path)
    write_weights(path, stored, {})  # MLX does not pad its headers: its tensors start anywhere and are copied
    for module, weights in from_mlx(adapter, model).weights.items():
        assert np.array_equal(weights.a, stored[f"{module}.lora_a"].T)
        assert np.array_equal(weights.b, stored[f"{module}.lora_b"].T)
        assert not weights.a.flags.owndata
        assert not weights.a.flags.writeable  # the mark of the mapped file


def test_a_bfloat16_adapter_keeps_its_bits(adapter, model) -> None:
    tensors = load_file(adapter / "adapters.safetensors")
    halves = {name: narrow(array, "bfloat16") for name, array in tensors.items()}
    write_weights(adapter / "adapters.safetensors", halves, {})
    card = from_mlx(adapter, model)
    assert card.dtypes == ("bfloat16",)
    for module, weights in card.weights.items():
        assert np.array_equal(bits(weights.a), bits(halves[f"{module}.lora_a"].T))


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(FIXTURE / "model", tmp_path / "model"))


@pytest.fixture
def adapter(tmp_path) -> Path:
    return Path(shutil.copytree(FIXTURE / "lora", tmp_path / "adapter"))


def change(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_tensors(adapter: Path, changed) -> None:
    path = adapter / "adapters.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in changed(load_file(path)).items()}, path)


PARAMETERS = {"rank": 4, "scale": 2.5, "dropout": 0.0}


@pytest.mark.parametrize(
    ("settings", "error", "field"),
    [
        ({"fine_tune_type": "full"}, UnsupportedAdapter, "fine_tune_type"),
        ({"fine_tune_type": "vera"}, UnsupportedAdapter, "fine_tune_type"),
        ({"fine_tune_type": "dora"}, InvalidAdapter, "tensors"),
        ({"lora_parameters": None}, InvalidAdapter, "lora_parameters"),
        ({"lora_parameters": PARAMETERS | {"alpha": 16}}, UnsupportedAdapter, "lora_parameters.alpha"),
        ({"lora_parameters": PARAMETERS | {"gate": 1}}, UnsupportedAdapter, "lora_parameters.gate"),
        ({"lora_parameters": PARAMETERS | {"rank": 5}}, InvalidAdapter, "model.layers.0.mlp.down_proj rank"),
        ({"lora_parameters": PARAMETERS | {"rank": True}}, InvalidAdapter, "lora_parameters.rank"),
        ({"lora_parameters": PARAMETERS | {"scale": 0}}, InvalidAdapter, "lora_parameters.scale"),
        ({"lora_parameters": PARAMETERS | {"scale": "20"}}, InvalidAdapter, "lora_parameters.scale"),
    ],
)
def test_a_configuration_that_we_cannot_follow_is_refused_by_field(adapter, model, settings, error, field) -> None:
    change(adapter / "adapter_config.json", **settings)
    with pytest.raises(error) as raised:
        from_mlx(adapter, model)
    assert raised.value.field == field


def test_an_old_configuration_may_say_use_dora(tmp_path, model) -> None:
    old = Path(shutil.copytree(FIXTURE / "dora", tmp_path / "old"))
    config = json.loads((old / "adapter_config.json").read_text()) | {"use_dora": True}
    del config["fine_tune_type"]
    (old / "adapter_config.json").write_text(json.dumps(config))
    assert from_mlx(old, model).variants == ("dora",)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.embed_tokens.lora_a", (96, 4), "inside the network alone"),
        ("lm_head.lora_a", (32, 4), "inside the network alone"),
        ("model.layers.0.mlp.switch_mlp.up_proj.lora_a", (8, 4, 32), "experts"),
        ("model.layers.0.self_attn.q_proj.weight", (32, 32), "fully trained layers"),
        ("model.layers.0.self_attn.q_proj.scales", (32, 1), "quantised"),
        ("model.layers.0.self_attn.q_proj.lora_c", (4, 4), "for DoRA, <module>.m"),
    ],
)
def test_a_tensor_that_we_do_not_apply_is_refused_by_name(adapter, model, name, shape, expected) -> None:
    change_tensors(adapter, lambda tensors: tensors | {name: np.zeros(shape, np.float32)})
    with pytest.raises(UnsupportedAdapter, match=expected) as raised:
        from_mlx(adapter, model)
    assert raised.value.value == name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda tensors: dict(list(tensors.items())[1:]), "lora_a, lora_b for lora"),
        (lambda tensors: {f"language_{name}": array for name, array in tensors.items()}, "of the base model"),
        (
            lambda tensors: {name: array[:-1] if "lora_a" in name else array for name, array in tensors.items()},
            "a shape",
        ),
        (lambda tensors: {name: array.T for name, array in tensors.items()}, "rank is 80"),
        (lambda tensors: {}, "at least one module"),
    ],
    ids=["half a pair", "other names", "other width", "not transposed", "empty"],
)
def test_matrices_that_do_not_fit_the_model_are_refused(adapter, model, changed, message) -> None:
    change_tensors(adapter, changed)
    with pytest.raises(InvalidAdapter, match=message):
        from_mlx(adapter, model)


def test_a_base_model_packed_by_mlx_is_refused(adapter, model) -> None:
    change(model / "config.json", quantization={"group_size": 64, "bits": 4})
    with pytest.raises(UnsupportedAdapter, match="transformers layout"):
        from_mlx(adapter, model)


def test_a_numpy_archive_is_refused_unopened(adapter, model) -> None:
    (adapter / "adapters.safetensors").rename(adapter / "adapters.npz")
    with pytest.raises(UnsupportedAdapter, match="may hold pickles"):
        from_mlx(adapter, model)


def test_what_is_missing_or_damaged_is_named(adapter, model, tmp_path) -> None:
    with pytest.raises(AdapterNotFound, match=r"config\.json is missing"):
        from_mlx(adapter, tmp_path / "nowhere")
    (adapter / "adapters.safetensors").write_bytes((adapter / "adapters.safetensors").read_bytes()[:-1])
    with pytest.raises(CorruptAdapter, match="truncated"):
        from_mlx(adapter, model)
    (adapter / "adapters.safetensors").unlink()
    with pytest.raises(AdapterNotFound, match=r"adapters\.safetensors is missing"):
        from_mlx(adapter, model)
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(CorruptAdapter, match="not a JSON object"):
        from_mlx(adapter, model)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(AdapterNotFound, match=r"adapter_config\.json is missing"):
        from_mlx(adapter, model)
