"""`Product`: what a linear layer, or several that read one input, compute as one."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from lora_core.int8 import Int8Linear


class Product(Protocol):
    """x: [..., in] → [..., out of all layers], in their order."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


class FloatProduct:
    """A floating point weight, [out, in], and perhaps a bias.

    For a few rows MKL copies all of the weight into an order of its own before it multiplies. Cut into blocks that stay
    in a core's cache, the same product takes half to nine tenths of the time (2 to 12 rows of float32).
    """

    _FEW = range(3, 13)
    _BLOCK, _WIDE_BLOCK = 64, 384
    """Outputs of a block, and of one where there are more than 8,192."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        out, self._in = weight.shape
        block = self._BLOCK if out <= 8192 else self._WIDE_BLOCK
        count = out // block if out % block == 0 and weight.dtype == torch.float32 else 1
        self._blocks = weight.view(count, -1, self._in).transpose(1, 2) if count > 1 else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.numel() // self._in
        if self._blocks is None or rows not in self._FEW:
            return nn.functional.linear(x, self._weight, self._bias)
        flat = x.reshape(rows, self._in).expand(self._blocks.shape[0], rows, self._in)
        found = torch.bmm(flat, self._blocks).transpose(0, 1).reshape(*x.shape[:-1], -1)
        return found if self._bias is None else found.add_(self._bias)


class PackedProduct:
    """A float32 weight, [out, in], copied into the order in which oneDNN multiplies; the layers keep theirs.

    MKL copies a weight into an order of its own at every product, and on AMD's processors multiplies it more slowly
    (decision 21 has the figures).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        # None: for any number of rows. What is packed for one row is slower for more.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return found


def packs(weight: torch.Tensor) -> bool:
    """Has this torch a `PackedProduct` for such a weight?"""
    built = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return built and weight.dtype == torch.float32 and weight.device.type == "cpu"


def product_of(layers: Sequence[nn.Linear], packed: bool) -> Product | None:
    """The layers as one product; None where they cannot be one.

    Plain layers then hold views of one weight, their own numbers. packed: a copy of it may be made, see
    `PackedProduct`.
    """
    if all(isinstance(layer, Int8Linear) for layer in layers):
        fused: list[Any] = [layer.product for layer in layers if isinstance(layer, Int8Linear)]
        whole = fused[0].out_features == sum(layer.out_features for layer in layers)
        return fused[0] if whole and all(one is fused[0] for one in fused) else None
    if any(type(layer) is not nn.Linear or not layer.weight.is_floating_point() for layer in layers):
        return None
    biases = [layer.bias for layer in layers]
    if len({layer.weight.dtype for layer in layers}) > 1 or len({bias is None for bias in biases}) > 1:
        return None
    with torch.no_grad():
        bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases])
        weight = _joined(layers)
        return PackedProduct(weight, bias) if packed and packs(weight) else FloatProduct(weight, bias)


def _joined(layers: Sequence[nn.Linear]) -> torch.Tensor:
    first = layers[0].weight.detach()
    if len(layers) == 1:
        return first
    whole = torch.cat([layer.weight.detach() for layer in layers])
    beside = 0
    for layer in layers:
        own = whole[beside : beside + layer.out_features]
        layer.weight = nn.Parameter(own, requires_grad=False)
        beside += layer.out_features
    return whole
