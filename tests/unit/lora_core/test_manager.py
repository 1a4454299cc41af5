"""LoRALinear and LoRAManager: the formula, what learns, and that everything can be undone."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from lora_core import AdapterNotFound, InvalidAdapter, LoRAFormat, LoRALinear, LoRAManager, LoRAWeights

IDS = torch.tensor([[5, 17, 42, 8]])


@pytest.mark.requirement("LI-2.1", "LI-2.2", "LI-2.3", "LI-2.5", "LI-2.6", "LI-9.2", "LI-9.5")
def test_a_lora_linear_computes_the_formula_over_the_base_layer_itself() -> None:
    torch.manual_seed(0)
    base = nn.Linear(12, 20)
    layer = LoRALinear(base, rank=3, alpha=5.0)
    random = np.random.default_rng(0)
    a, b = random.standard_normal((3, 12), np.float32), random.standard_normal((20, 3), np.float32)
    layer.load_weights(LoRAWeights(a, b))
    x = torch.randn(2, 7, 12)
    expected = x @ base.weight.T + base.bias + (x @ torch.tensor(a.T) @ torch.tensor(b.T)) * (5.0 / 3)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)
    assert layer.base_layer is base
    assert layer.weight.data_ptr() == base.weight.data_ptr()
    assert layer(x).shape == base(x).shape
    rs = LoRALinear.of(base, LoRAWeights(a, b), 5.0, rslora=True)
    assert rs.scaling == pytest.approx(5.0 / 3**0.5)


def test_a_fresh_layer_computes_exactly_what_its_base_does() -> None:
    base = nn.Linear(6, 4)
    x = torch.randn(3, 6)
    assert torch.equal(LoRALinear(base, 2, 4.0)(x), base(x))


@pytest.mark.requirement("LI-2.4", "LI-2.7")
def test_training_moves_a_and_b_alone_and_learns_a_low_rank_change() -> None:
    torch.manual_seed(0)
    base = nn.Linear(16, 16)
    frozen = base.weight.clone()
    target = base.weight.detach() + torch.randn(16, 2) @ torch.randn(2, 16) * 0.3
    layer = LoRALinear(base, rank=2, alpha=2.0).train()
    learning = [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
    assert learning == ["a", "b"]
    optimiser = torch.optim.Adam([layer.a, layer.b], lr=0.05)
    x = torch.randn(256, 16)
    losses = []
    for _ in range(400):
        loss = (layer(x) - x @ target.T - base.bias).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 1000
    assert torch.equal(base.weight, frozen)
    assert base.weight.grad is None
    restored = LoRALinear.of(base, layer.weights(), 2.0, rslora=False)
    assert torch.equal(restored(x), layer(x))


@pytest.mark.requirement("LI-7.2")
def test_weights_of_another_shape_are_refused_by_a_layer() -> None:
    layer = LoRALinear(nn.Linear(6, 4), 2, 4.0)
    with pytest.raises(InvalidAdapter, match=r"a shape is \[2, 5\], expected \[2, 6\]"):
        layer.load_weights(LoRAWeights(np.ones((2, 5), np.float32), np.ones((4, 2), np.float32)))


@pytest.mark.requirement("LI-3.1", "LI-3.2", "LI-3.3", "LI-3.5", "LI-3.6", "LI-3.7", "LI-3.8", "LI-9.3")
def test_an_applied_adapter_changes_the_model_and_removing_it_restores_the_very_layers(
    tiny_llama, make_card, tmp_path, caplog
) -> None:
    card = make_card(alpha=7.0, rslora=True)
    LoRAFormat.save(card, tmp_path / "a.arrow")
    layers = {name: tiny_llama.get_submodule(name) for name in card.weights}
    before = tiny_llama(IDS).logits
    manager = LoRAManager(tiny_llama)
    with caplog.at_level(logging.INFO, "lora_core"):
        injection = manager.apply(tmp_path / "a.arrow")
    assert "adapter_applied adapter=adapter layers=21 " in caplog.text
    assert manager.active == ("adapter",)
    assert set(manager.injections["adapter"].modules) == set(card.weights)
    assert injection.parameters == card.parameters
    assert all(isinstance(tiny_llama.get_submodule(name), LoRALinear) for name in card.weights)
    applied = tiny_llama(IDS).logits
    for name, weights in card.weights.items():
        delta = torch.from_numpy(weights.b @ weights.a) * card.scaling(name)
        layers[name].weight.data += delta
    manager.remove("adapter")
    torch.testing.assert_close(applied, tiny_llama(IDS).logits, atol=2e-4, rtol=0)  # as the merged model's
    for name, weights in card.weights.items():
        layers[name].weight.data -= torch.from_numpy(weights.b @ weights.a) * card.scaling(name)
    assert all(tiny_llama.get_submodule(name) is layer for name, layer in layers.items())
    assert (applied - before).abs().max() > 0.01
    assert manager.active == ()


@pytest.mark.requirement("LI-3.5", "LI-3.7")
def test_after_removal_the_output_is_bit_identical(tiny_llama, make_card) -> None:
    before = tiny_llama(IDS).logits
    manager = LoRAManager(tiny_llama)
    manager.apply(make_card())
    manager.remove("adapter")
    assert torch.equal(tiny_llama(IDS).logits, before)


@pytest.mark.requirement("LI-3.4")
def test_adapters_on_different_layers_are_active_together(tiny_llama, make_card) -> None:
    q, down = make_card("q", 4, 1, only=("q_proj",)), make_card("down", 4, 2, only=("down_proj",))
    manager = LoRAManager(tiny_llama)
    manager.apply(q)
    only_q = tiny_llama(IDS).logits
    manager.apply(down)
    assert manager.active == ("q", "down")
    assert not torch.equal(tiny_llama(IDS).logits, only_q)
    manager.remove("down")
    assert torch.equal(tiny_llama(IDS).logits, only_q)


@pytest.mark.requirement("LI-8.1", "LI-8.2", "LI-8.4", "LI-8.5")
def test_adapters_on_the_same_layer_add_up_and_come_off_in_any_order(tiny_llama, make_card) -> None:
    cards = [make_card(name, 4, seed, only=("q_proj",)) for seed, name in enumerate("abc")]
    module = "model.layers.0.self_attn.q_proj"
    base = tiny_llama.get_submodule(module)
    x = torch.randn(3, 32)
    deltas = [x @ torch.tensor(c.weights[module].a.T) @ torch.tensor(c.weights[module].b.T) * 1.5 for c in cards]
    for order in ("abc", "bca", "cab", "bac"):
        manager = LoRAManager(tiny_llama)
        for card in cards:
            manager.apply(card)
        left = {card.name: delta for card, delta in zip(cards, deltas, strict=True)}
        for name in order:
            torch.testing.assert_close(
                tiny_llama.get_submodule(module)(x), base(x) + sum(left.values()), atol=1e-4, rtol=0
            )
            manager.remove(name)
            del left[name]
        assert tiny_llama.get_submodule(module) is base


@pytest.mark.requirement("LI-7.3")
def test_target_modules_that_the_model_lacks_are_logged_and_left_out(tiny_llama, make_card, caplog) -> None:
    card = make_card()
    extra = {**card.weights, "model.layers.7.self_attn.q_proj": card.weights["model.layers.0.self_attn.q_proj"]}
    partly = type(card)("partly", 4, 6.0, card.target_modules, extra)
    injection = LoRAManager(tiny_llama).apply(partly)
    assert injection.missing == ("model.layers.7.self_attn.q_proj",)
    assert len(injection.modules) == 21
    assert "target_modules_missing adapter=partly count=1 first=model.layers.7.self_attn.q_proj" in caplog.text


def test_an_adapter_of_which_no_layer_is_found_never_serves_the_base_model_in_silence(tiny_llama, make_card) -> None:
    card = make_card()
    strange = type(card)("strange", 4, 6.0, ("x",), {"x.y": card.weights["model.layers.0.self_attn.q_proj"]})
    with pytest.raises(InvalidAdapter, match="layers that the model has"):
        LoRAManager(tiny_llama).apply(strange)


@pytest.mark.requirement("LI-7.4", "LI-7.5")
def test_applying_twice_is_logged_and_skipped_and_removing_the_unknown_is_silent(tiny_llama, make_card, caplog) -> None:
    manager = LoRAManager(tiny_llama)
    manager.apply(make_card())
    once = tiny_llama(IDS).logits
    manager.apply(make_card(seed=5))
    assert "adapter_already_active adapter=adapter" in caplog.text
    assert torch.equal(tiny_llama(IDS).logits, once)
    manager.remove("never applied")
    assert manager.active == ("adapter",)


@pytest.mark.requirement("LI-7.1", "LI-7.2", "LI-7.7")
def test_a_refused_adapter_leaves_the_model_as_it_was(tiny_llama, make_card, tmp_path) -> None:
    card = make_card()
    wrong = LoRAWeights(np.ones((4, 32), np.float32), np.ones((31, 4), np.float32))
    bad = type(card)("bad", 4, 6.0, card.target_modules, {**card.weights, "model.layers.2.mlp.up_proj": wrong})
    manager = LoRAManager(tiny_llama)
    with pytest.raises(InvalidAdapter, match="the base model's layer has 80 outputs"):
        manager.apply(bad)
    assert not any(isinstance(module, LoRALinear) for module in tiny_llama.modules())
    assert manager.active == ()
    with pytest.raises(AdapterNotFound, match="no adapter file at"):
        manager.apply(tmp_path / "gone.arrow")
