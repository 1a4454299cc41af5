"""Base layers with 8-bit weights: how near they come, and that a row's answer depends on nothing but the row."""

import numpy as np
import pytest
import torch
from torch import nn

from lora_core.engine import ArrowEngine
from lora_core.int8 import Int8Linear, to_int8
from lora_core.layers import dense_weight
from tests.unit.lora_core.conftest import MakeCard


def _layer(outputs: int = 40, inputs: int = 24, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
def test_the_output_is_that_of_the_rounded_weights(bias: bool) -> None:
    layer = _layer(bias=bias)
    small = Int8Linear(layer)
    scales = layer.weight.abs().amax(1, keepdim=True) / 127
    rounded = (layer.weight / scales).round() * scales
    # One activation a thousand times the others: the case for which one 8-bit term would not do.
    x = torch.randn(5, 7, 24)
    x[..., 3] *= 1000
    exact = nn.functional.linear(x, rounded, layer.bias)
    assert torch.allclose(small(x), exact, atol=1e-3 * float(exact.abs().max()))
    assert torch.allclose(dense_weight(small), rounded, atol=1e-6)
    assert torch.isfinite(small(torch.zeros(1, 24))).all()


def test_a_row_has_the_same_bits_alone_and_among_any_neighbours() -> None:
    small = Int8Linear(_layer())
    rows = torch.randn(9, 1, 24) * torch.logspace(-3, 3, 9).view(9, 1, 1)
    together = small(rows)
    for row, expected in zip(rows, together, strict=True):
        assert torch.equal(small(row.unsqueeze(0))[0], expected)


@pytest.mark.requirement("LI-2.1", "AS-7.1")
def test_adapters_on_8_bit_weights_answer_as_on_the_same_weights_rounded(
    tiny_llama, tiny_tokenizer, make_card: MakeCard
) -> None:
    import copy

    rounded = copy.deepcopy(tiny_llama)
    assert to_int8(tiny_llama) == 22  # seven in each of three layers, and the output head
    for name, module in rounded.named_modules():
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                own = dense_weight(tiny_llama.get_submodule(name)).clone()
            module.weight = nn.Parameter(own, requires_grad=False)
    card = make_card(rank=4)
    ids = torch.tensor([[5, 9, 31, 7, 80]] * 2)
    found = []
    for model in (tiny_llama, rounded):
        engine = ArrowEngine(model, tiny_tokenizer, slots=2, max_rank=8)
        engine.load(card, "one")
        with engine.rows(["one", None]), torch.inference_mode():
            found.append(model(ids).logits)
    small, exact = found
    assert not np.allclose(small[0], small[1], atol=0.1)
    assert torch.allclose(small, exact, atol=1e-3 * float(exact.abs().max()))
