"""`Merged`: one adapter folded into weights of its own, which take the base weights' place for single passes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lora_core.errors import UnsupportedAdapter
from lora_core.layers import Adaptable, bias_of, is_quantised, output_scale


class Merged:
    """Parameters that stand in for a model's own while entered. The own ones are kept as they are and put back."""

    def __init__(self) -> None:
        self._merged: list[tuple[Adaptable, dict[str, nn.Parameter]]] = []

    @property
    def bytes(self) -> int:
        """What the stand-ins take beside the model."""
        return sum(p.numel() * p.element_size() for _, own in self._merged for p in own.values())

    def add(
        self,
        name: str,
        module: Adaptable,
        a: torch.Tensor,
        b: torch.Tensor,
        *,
        surplus: torch.Tensor | None = None,
        shift: torch.Tensor | None = None,
    ) -> None:
        """a: [rank, in] and b: [rank, out], whose product is added to the weight; surplus, shift: [out], see `group`.

        Raises UnsupportedAdapter on a quantised layer: merged and quantised again it would be another model.
        """
        if is_quantised(module):
            raise UnsupportedAdapter(name, "a quantised base layer", "floating point weights, to merge into")
        embedding = isinstance(module, nn.Embedding)
        weight = module.weight.detach()
        if surplus is not None:
            weight = weight * (1 + surplus if embedding else (1 + surplus).unsqueeze(1))
        # The embedding itself multiplies what b has been multiplied with.
        left, right = (a.t(), b / output_scale(module)) if embedding else (b.t(), a)
        parameters = {"weight": nn.Parameter(torch.addmm(weight, left, right), requires_grad=False)}
        if shift is not None:
            bias = bias_of(module)
            if embedding:
                raise UnsupportedAdapter(name, "a bias on an embedding", "none")
            own = 0 if bias is None else bias.detach() * (1 if surplus is None else 1 + surplus)
            parameters["bias"] = nn.Parameter(shift + own, requires_grad=False)
        self._merged.append((module, parameters))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside, the stand-ins take over. Parameters are exchanged, never written: tied ones stay tied."""
        own = [{key: module._parameters[key] for key in parameters} for module, parameters in self._merged]
        for module, parameters in self._merged:
            module._parameters.update(parameters)
        try:
            yield
        finally:
            for (module, _), kept in zip(self._merged, own, strict=True):
                module._parameters.update(kept)
