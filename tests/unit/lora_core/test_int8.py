"""Base layers with 8-bit weights: how near they come, and that a row's answer depends on nothing but the row."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from lora_core.engine import ArrowEngine
from lora_core.int8 import Int8Product, to_int8
from lora_core.int8_kernels import DotProducts, SevenBits, best_kernel, has_dot_products
from lora_core.layers import dense_weight
from tests.unit.lora_core.conftest import MakeCard

KERNELS = (SevenBits, DotProducts) if has_dot_products() else (SevenBits,)
"""Those that this processor has."""


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel in its turn."""
    monkeypatch.setattr("lora_core.int8.best_kernel", request.param)


def _layer(outputs: int = 40, inputs: int = 24, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def _rounded(weight: torch.Tensor, exact: list[int]) -> torch.Tensor:
    others = weight.clone()
    others[:, exact] = 0
    scales = others.abs().amax(1, keepdim=True) / 127
    found = (others / scales).round() * scales
    found[:, exact] = weight[:, exact]
    return found


@pytest.mark.parametrize("bias", [True, False])
def test_the_output_is_that_of_the_rounded_weights_and_the_largest_columns_are_exact(kernel: None, bias: bool) -> None:
    layer = _layer(bias=bias)
    product = Int8Product(layer.weight, layer.bias, torch.tensor([3, 9]))
    rounded = _rounded(layer.weight, [3, 9])
    # Activations a thousand times the others, one of them in no column that is known.
    x = torch.randn(5, 7, 24)
    x[..., 3] *= 1000
    x[2, 4, 11] *= 1000
    exact = nn.functional.linear(x, rounded, layer.bias)
    assert torch.allclose(product(x), exact, atol=1e-3 * float(exact.abs().max()))
    ordinary = nn.functional.linear(x[:2], rounded, layer.bias)
    assert torch.allclose(product(x[:2]), ordinary, atol=1e-3)
    assert torch.isfinite(product(torch.zeros(1, 24))).all()


def test_a_row_has_the_same_numbers_alone_and_among_any_neighbours(kernel: None) -> None:
    product = Int8Product(_layer().weight, None, torch.tensor([1]))
    rows = torch.randn(9, 1, 24) * torch.logspace(-3, 3, 9).view(9, 1, 1)
    together = product(rows)
    for row, expected in zip(rows, together, strict=True):
        assert torch.allclose(product(row.unsqueeze(0))[0], expected, rtol=1e-5, atol=1e-6)


def test_without_amx_the_product_is_not_left_to_a_reference_implementation() -> None:
    if not has_dot_products():
        assert isinstance(best_kernel(torch.randn(64, 64), torch.ones(64)), SevenBits)
        return
    # As on processors that have VNNI alone: oneDNN then takes seconds for one layer of signed inputs.
    limited = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "ONEDNN_VERBOSE": "1"}
    script = (
        "import torch\nfrom lora_core.int8_kernels import DotProducts\n"
        "DotProducts(torch.randn(64, 64), torch.ones(64)).product(torch.ones(3, 64))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | limited, capture_output=True, text=True, check=True
    )
    products = [line for line in done.stdout.splitlines() if ",exec," in line and ",matmul," in line]
    assert products, done.stdout
    assert not [line for line in products if ",ref" in line]


def test_layers_that_read_one_input_are_one_product_and_each_has_its_own_part(tiny_qwen, kernel: None) -> None:
    exact = copy.deepcopy(tiny_qwen)
    to_int8(tiny_qwen)
    attention, own = tiny_qwen.model.layers[0].self_attn, exact.model.layers[0].self_attn
    assert attention.q_proj.product is attention.k_proj.product is attention.v_proj.product
    x = torch.randn(2, 3, 32)
    for _ in range(2):
        first = attention.q_proj(x)
        first.zero_()  # as adapters change an output where it is
        for name in ("q_proj", "k_proj", "v_proj"):
            found, expected = getattr(attention, name)(x), getattr(own, name)(x)
            assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max())), name


@pytest.mark.requirement("LI-2.1", "AS-7.1")
def test_adapters_on_8_bit_weights_answer_as_on_the_same_weights_rounded(
    tiny_llama, tiny_tokenizer, make_card: MakeCard
) -> None:
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
