"""Linear layers with 8-bit weights for processors: less memory to read for each token, answers nearly the same.

Each output's weights share one scale. The input is split into two 7-bit terms, the second of which is what the first
leaves over, so that only the weights are rounded noticeably: language models have a few large activations, and one
8-bit term for all of them costs far more than 8-bit weights do (cf. Dettmers et al. 2022, arXiv:2208.07339). Seven
bits, because processors without dot product instructions saturate beyond. Each token has a scale of its own and the
products are sums of integers: a row's output does not depend on its neighbours at all.
"""

import warnings
from typing import Any

import torch
from torch import nn

_LEVELS = 63
_ZERO = 64
_SMALLEST = 1e-30


class Int8Linear(nn.Linear):
    """A linear layer of float32 inputs and outputs; `weight` is empty, the packed integers are its own."""

    compute_dtype = torch.float32

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        scales = (weight.abs().amax(1) / 127).clamp_min(_SMALLEST).double()
        zeros = torch.zeros_like(scales, dtype=torch.long)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # the tensor type, not the product, is old
            quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed: Any = torch.ops.quantized.linear_prepack(quantised, None)
        self.weight = nn.Parameter(weight.new_empty(0, dtype=torch.int8), requires_grad=False)
        self.bias = layer.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [..., in], float32. Returns [..., out]."""
        largest = input.abs().amax(-1, keepdim=True).clamp_min(_SMALLEST)
        terms = input.new_empty((2, *input.shape))
        high, low = terms[0], terms[1]
        torch.div(input, largest, out=low)
        torch.mul(low, _LEVELS, out=high).round_().div_(_LEVELS)
        low.sub_(high).mul_(2 * _LEVELS)  # within half a level of zero, so that it fills the range again
        products = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            terms, 1 / _LEVELS, _ZERO, self._packed
        )
        output: torch.Tensor = products[0].add_(products[1], alpha=1 / (2 * _LEVELS)).mul_(largest)
        return output if self.bias is None else output.add_(self.bias)


def to_int8(model: nn.Module) -> int:
    """Replaces every plain linear layer of a float32 model on the CPU in place; returns how many.

    Raises RuntimeError where this processor has no 8-bit matrix product.
    """
    if not {"fbgemm", "x86", "onednn", "qnnpack"} & set(torch.backends.quantized.supported_engines):
        raise RuntimeError("int8 weights need a processor for which torch has an 8-bit matrix product")
    layers = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    for name, layer in layers:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, Int8Linear(layer))
    return len(layers)
