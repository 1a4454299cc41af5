"""`Inputs`: what one forward pass reads, and that pass through a model of transformers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True, eq=False)
class Inputs:
    """Tokens of rows that have the same number of positions in the cache, padded on the left.

    ids: [rows, tokens]. padding: of each row the positions at its beginning that hold nothing. used: positions that the
    cache holds before the pass. last: whether the logits of the last token are wanted.
    """

    ids: torch.Tensor
    padding: Sequence[int]
    used: int
    last: bool

    @property
    def end(self) -> int:
        """Positions that the cache holds after the pass."""
        return self.used + int(self.ids.shape[1])

    def positions(self) -> torch.Tensor:
        """Of each token its place in its own row, [rows, tokens]; 0 where it is padding."""
        at = torch.arange(self.used, self.end, device=self.ids.device)
        return (at - self._padding()).clamp_(min=0)

    def filled(self) -> torch.Tensor:
        """[rows, positions after the pass], False where a row is padded."""
        return torch.arange(self.end, device=self.ids.device) >= self._padding()

    def _padding(self) -> torch.Tensor:
        return torch.tensor(self.padding, device=self.ids.device).unsqueeze(1)


def through_transformers(model: PreTrainedModel, inputs: Inputs, cache: DynamicCache) -> torch.Tensor | None:
    """The logits of the last position, [rows, vocabulary]; None where they are not wanted."""
    # Without the output head where its logits are not needed yet.
    read = model if inputs.last else model.base_model
    found = read(
        input_ids=inputs.ids,
        attention_mask=inputs.filled().long(),
        position_ids=inputs.positions(),
        past_key_values=cache,
        use_cache=True,
        **({"logits_to_keep": 1} if inputs.last else {}),
    )
    if not inputs.last:
        return None
    logits: torch.Tensor = found.logits[:, -1]
    return logits
