"""`Kernel`: products of integers with 8-bit weights, by what the processor has."""

import warnings
from typing import Any, Protocol

import torch


class Kernel(Protocol):
    """A weight matrix, [out, in], as 8-bit integers and one scale for each output.

    levels: how far the integers of an input may go.
    """

    @property
    def levels(self) -> int: ...

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x: whole numbers from -levels to levels, float32, [rows, in]; is overwritten. Returns [rows, out]."""
        ...


class DotProducts:
    """oneDNN's product of 8-bit inputs, for processors with VNNI; with AMX it takes that.

    Inputs go in without sign, around 128: with VNNI but no AMX, oneDNN has only a reference implementation for signed
    ones, which takes hundreds of times as long.
    """

    levels = 127
    _ZERO = 128

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor) -> None:
        whole = (weight / scales.unsqueeze(1)).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(whole, None)
        self._scales, self._zeros = scales, torch.zeros(len(scales), dtype=torch.int64)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        unsigned = x.round_().add_(self._ZERO).to(torch.uint8)
        found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned, 1.0, self._ZERO, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        return found


class SevenBits:
    """torch's own product of 7-bit inputs: processors without dot product instructions saturate beyond."""

    levels = 63
    _ZERO = 64

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor) -> None:
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # the tensor type, not the product, is old
            quantised = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self._packed: Any = torch.ops.quantized.linear_prepack(quantised, None)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x, 1.0, self._ZERO, self._packed
        )
        return found


def has_dot_products() -> bool:
    """Does the processor add products of 8-bit integers in one instruction (VNNI), and torch have oneDNN for it?"""
    found = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
    return bool(found and torch._C._has_mkldnn)


def best_kernel(weight: torch.Tensor, scales: torch.Tensor) -> Kernel:
    """weight: float32, [out, in]. scales: [out]. Raises RuntimeError where there is none for this processor."""
    if has_dot_products():
        return DotProducts(weight, scales)
    if not {"fbgemm", "x86", "onednn", "qnnpack"} & set(torch.backends.quantized.supported_engines):
        raise RuntimeError("int8 weights need a processor for which torch has an 8-bit matrix product")
    return SevenBits(weight, scales)
