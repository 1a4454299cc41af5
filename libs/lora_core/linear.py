"""`LoRALinear` and `LoRAEmbedding`: a base layer with one adapter beside it."""

import math
from typing import Self

import torch
from torch import nn

from lora_core.errors import InvalidAdapter
from lora_core.layers import Adaptable, bias_of, compute_dtype, dense_weight, dimensions, output_scale
from lora_core.tensors import from_torch, to_torch
from lora_core.weights import LoRAWeights


class LoRALinear(nn.Module):
    """`y = base_layer(x) + (x @ A.T) @ B.T · scaling` (Hu et al. 2021, arXiv:2106.09685).

    Wraps the base layer itself, quantised or not, without copying it, and freezes it; only what is listed here learns.
    The base layer may be another LoRALinear: adapters on one layer add up.

    a: [rank, in], b: [out, rank]; scaling = alpha/rank, or alpha/√rank for rsLoRA (arXiv:2312.03732).
    magnitude: [out] or None; with it (DoRA, arXiv:2402.09353) `y = gain · (W x + B A x · scaling) + bias`, where gain
    = magnitude / ‖W + B A · scaling‖ by row, the norm taken as a constant by the gradient.
    lora_bias: [out] or None; added to B's output before scaling. base_bias: [out] or None; in place of the base's.
    x: [..., in] → [..., out]. A fresh layer (b = 0) computes exactly what the base layer does.
    """

    def __init__(
        self,
        base_layer: "Adaptable | LoRALinear",
        rank: int,
        alpha: float,
        *,
        rslora: bool = False,
        dora: bool = False,
        lora_bias: bool = False,
        base_bias: bool = False,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise InvalidAdapter("rank", rank, "at least 1")
        if not (math.isfinite(alpha) and alpha > 0):
            raise InvalidAdapter("alpha", alpha, "a finite number above 0")
        self.base_layer = base_layer.requires_grad_(False)
        self.out_features, self.in_features = dimensions(self.origin)
        self.rank, self.alpha = rank, alpha
        self.scaling = alpha / (math.sqrt(rank) if rslora else rank)
        self.a = self._parameter(rank, self.in_features)
        self.b = self._parameter(self.out_features, rank)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as PEFT starts A
        self.magnitude = self._parameter(self.out_features) if dora else None
        self.lora_bias = self._parameter(self.out_features) if lora_bias else None
        self.base_bias = self._parameter(self.out_features) if base_bias else None
        with torch.no_grad():
            if self.magnitude is not None:  # a gain of 1
                self.magnitude.copy_(torch.linalg.vector_norm(dense_weight(self.origin), dim=1))
            if self.base_bias is not None and (own := bias_of(self.origin)) is not None:
                self.base_bias.copy_(own)

    @classmethod
    def of(cls, base_layer: "Adaptable | LoRALinear", weights: LoRAWeights, alpha: float, *, rslora: bool) -> Self:
        """A layer with these weights, in the base layer's compute dtype and on its device."""
        layer = cls(
            base_layer,
            weights.rank,
            weights.alpha or alpha,
            rslora=rslora,
            dora=weights.magnitude is not None,
            lora_bias=weights.lora_bias is not None,
            base_bias=weights.base_bias is not None,
        )
        layer.load_weights(weights)
        return layer

    @property
    def origin(self) -> Adaptable:
        """The model's own layer under all adapters."""
        inner: Adaptable | LoRALinear = self.base_layer
        return inner.origin if isinstance(inner, LoRALinear) else inner

    @property
    def weight(self) -> torch.Tensor:
        """The base layer's own weight, untouched."""
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The base layer's own bias, if it has one: Mamba computes with its `dt_proj`'s weight and bias directly."""
        return bias_of(self.origin)

    def load_weights(self, weights: LoRAWeights) -> None:
        """Copy everything in. Raises InvalidAdapter if it does not fit this layer and rank."""
        mine = self._trained()
        if mine.keys() != weights.arrays.keys():
            raise InvalidAdapter("arrays", sorted(weights.arrays), f"{sorted(mine)}, as this layer was made")
        for name, array in weights.arrays.items():
            if array.shape != mine[name].shape:
                raise InvalidAdapter(f"{name} shape", list(array.shape), str(list(mine[name].shape)))
        with torch.no_grad():
            for name, array in weights.arrays.items():
                mine[name].copy_(to_torch(array))

    def weights(self) -> LoRAWeights:
        """A copy of everything as it is now, for a card."""
        vectors = {name: from_torch(p) for name, p in self._trained().items() if name not in ("a", "b")}
        return LoRAWeights(from_torch(self.a), from_torch(self.b), self.alpha, **vectors)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The class's formula. x: [..., in] → [..., out]."""
        base: torch.Tensor = self.base_layer(x)
        delta = nn.functional.linear(self._reduce(x), self.b)
        if self.lora_bias is not None:
            delta = delta + self.lora_bias
        delta = delta * self.scaling
        own_bias = bias_of(self.origin)
        if self.magnitude is not None:
            gain = self._gain(self.magnitude)
            plain = base if self.base_layer is self.origin else self.origin(x)
            plain = plain if own_bias is None else plain - own_bias
            delta = gain * delta + (gain - 1) * plain.to(delta.dtype)
        if self.base_bias is not None:
            delta = delta + (self.base_bias if own_bias is None else self.base_bias - own_bias)
        return base + delta.to(base.dtype)

    def extra_repr(self) -> str:
        """Sizes, rank and alpha, where torch prints the model."""
        return f"in={self.in_features}, out={self.out_features}, rank={self.rank}, alpha={self.alpha:g}"

    def _reduce(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.to(self.a.dtype), self.a)

    def _gain(self, magnitude: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weight = dense_weight(self.origin).to(self.a.dtype)
            norm: torch.Tensor = torch.linalg.vector_norm(weight + self.scaling * self.b @ self.a, dim=1)
        gain: torch.Tensor = magnitude / norm
        return gain

    def _trained(self) -> dict[str, nn.Parameter]:
        named = ("a", "b", "magnitude", "lora_bias", "base_bias")
        return {name: parameter for name in named if (parameter := getattr(self, name)) is not None}

    def _parameter(self, *shape: int) -> nn.Parameter:
        origin = self.origin
        return nn.Parameter(torch.zeros(shape, dtype=compute_dtype(origin), device=origin.weight.device))


class LoRAEmbedding(LoRALinear):
    """As LoRALinear over an embedding: in = vocabulary, out = embedding size. x: token ids [...] → [..., out].

    What the embedding multiplies its rows with (Gemma: √hidden) multiplies the adapter's too, as in PEFT.
    """

    def _reduce(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(x, self.a.t()) * output_scale(self.origin)


def wrap(base_layer: Adaptable | LoRALinear, weights: LoRAWeights, alpha: float, *, rslora: bool) -> LoRALinear:
    """The adapter layer that suits a base layer."""
    origin = base_layer.origin if isinstance(base_layer, LoRALinear) else base_layer
    kind = LoRAEmbedding if isinstance(origin, nn.Embedding) else LoRALinear
    return kind.of(base_layer, weights, alpha, rslora=rslora)
