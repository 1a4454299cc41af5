"""`Rotation`: rotary position embeddings (Su et al. 2021, arXiv:2104.09864) from a table that grows."""

from typing import Any

import torch
from torch import nn

from lora_core.forward_pass import Inputs


class Rotation:
    """angles: the model's own module, which gives cos and sin of positions."""

    def __init__(self, angles: nn.Module, head_dim: int, dtype: torch.dtype) -> None:
        self._angles: Any = angles
        self._half, self._dtype = head_dim // 2, dtype
        self._cosines = self._sines = torch.empty((0, head_dim), dtype=dtype)

    def of(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """For each token, [rows or 1, tokens, 1, head_dim]; the sines of the first half of a head are negative."""
        if inputs.end > len(self._cosines):
            self._fill(max(256, 2 * inputs.end))
        if any(inputs.padding):
            at = inputs.positions()
            return self._cosines[at].unsqueeze(2), self._sines[at].unsqueeze(2)
        between = slice(inputs.used, inputs.end)
        return self._cosines[between][None, :, None], self._sines[between][None, :, None]

    def turn(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """heads: [rows, tokens, heads, head_dim], turned by what `of` gives."""
        return (heads * cosines).addcmul_(heads.roll(self._half, -1), sines)

    def _fill(self, positions: int) -> None:
        like = torch.empty(0, dtype=self._dtype)
        cosines, sines = self._angles(like, torch.arange(positions).unsqueeze(0))
        self._cosines, self._sines = cosines[0].clone(), sines[0].clone()
        self._sines[:, : self._half].neg_()
