"""`LoRALinear`: a linear layer with one adapter beside it."""

import math
from typing import Self

import torch
from torch import nn

from lora_core.card import LoRAWeights
from lora_core.errors import InvalidAdapter
from lora_core.tensors import from_torch, to_torch


class LoRALinear(nn.Module):
    """`y = base_layer(x) + (x @ A.T) @ B.T · scaling` (Hu et al. 2021, arXiv:2106.09685).

    Wraps the base layer itself, without copying it, and freezes it; A and B alone learn. The base layer may be another
    LoRALinear: adapters on one layer add up.

    a: [rank, in], b: [out, rank]; scaling = alpha/rank, or alpha/√rank for rsLoRA (arXiv:2312.03732).
    x: [..., in] → [..., out]. A fresh layer (b = 0) computes exactly what the base layer does.
    """

    in_features: int
    out_features: int

    def __init__(self, base_layer: "nn.Linear | LoRALinear", rank: int, alpha: float, *, rslora: bool = False) -> None:
        super().__init__()
        if rank < 1:
            raise InvalidAdapter("rank", rank, "at least 1")
        if not (math.isfinite(alpha) and alpha > 0):
            raise InvalidAdapter("alpha", alpha, "a finite number above 0")
        self.base_layer = base_layer.requires_grad_(False)
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.rank, self.alpha = rank, alpha
        self.scaling = alpha / (math.sqrt(rank) if rslora else rank)
        weight = base_layer.weight
        self.a = nn.Parameter(torch.empty(rank, self.in_features, dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(self.out_features, rank, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as PEFT starts A

    @classmethod
    def of(cls, base_layer: "nn.Linear | LoRALinear", weights: LoRAWeights, alpha: float, *, rslora: bool) -> Self:
        """A layer with these weights, in the base layer's dtype and on its device."""
        layer = cls(base_layer, weights.rank, weights.alpha or alpha, rslora=rslora)
        layer.load_weights(weights)
        return layer

    @property
    def weight(self) -> torch.Tensor:
        """The base layer's own weight, [out, in], untouched."""
        return self.base_layer.weight

    def load_weights(self, weights: LoRAWeights) -> None:
        """Copy A and B in. Raises InvalidAdapter if they do not fit this layer and rank."""
        for name, array, own in (("A", weights.a, self.a), ("B", weights.b, self.b)):
            if array.shape != own.shape:
                raise InvalidAdapter(f"{name} shape", list(array.shape), str(list(own.shape)))
        with torch.no_grad():
            self.a.copy_(to_torch(weights.a))
            self.b.copy_(to_torch(weights.b))

    def weights(self) -> LoRAWeights:
        """A copy of A and B as they are now, for a card."""
        return LoRAWeights(from_torch(self.a), from_torch(self.b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        base: torch.Tensor = self.base_layer(x)
        delta = nn.functional.linear(nn.functional.linear(x.to(self.a.dtype), self.a), self.b)
        return base + (delta * self.scaling).to(base.dtype)

    def extra_repr(self) -> str:
        return f"in={self.in_features}, out={self.out_features}, rank={self.rank}, alpha={self.alpha:g}"
