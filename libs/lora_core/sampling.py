"""What a generation asks for, and how one token is picked from logits."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

Adapters: TypeAlias = str | Mapping[str, float] | None
"""A row's adapter: the name of a loaded one, up to three of them with their weights, or None for the base model."""


GREEDY_BELOW = 1e-4
"""Temperatures below this are greedy, which is their limit: dividing by less leaves the range of float32."""


class BrokenLogits(ArithmeticError):
    """A row's logits are no numbers: its weights, its adapter or its prompt have left the range of the data type."""


@dataclass(frozen=True)
class Request:
    """One row of a batch.

    adapter: see `Adapters`. temperature: 0 to `GREEDY_BELOW` is greedy. top_p: nucleus sampling
    (Holtzman et al. 2020, arXiv:1904.09751). seed: the same seed gives the same tokens, whatever else is in the
    batch; None picks one. stop_ids: tokens that end the row (not part of its output); None for the model's own.
    """

    prompt_ids: Sequence[int]
    adapter: Adapters = None
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: Collection[int] | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("prompt_ids is empty: expected at least one token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected at least 1")
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature is {self.temperature}, expected 0 to 100")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected more than 0 and at most 1")


class Sampler:
    """Picks the tokens of one row."""

    def __init__(self, request: Request) -> None:
        self._temperature = request.temperature if request.temperature >= GREEDY_BELOW else 0.0
        self._top_p = request.top_p
        self._random = torch.Generator()
        if request.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(request.seed & 0xFFFF_FFFF_FFFF_FFFF)

    def pick(self, logits: torch.Tensor) -> tuple[int, float]:
        """Next token and its log-probability under the model itself (temperature 1). logits: [vocabulary].

        Raises BrokenLogits if they are NaN or infinite; a token that cannot be drawn may have a logit of -inf.
        """
        logits = logits.float()
        total = float(logits.logsumexp(-1))
        if not math.isfinite(total):
            raise BrokenLogits(f"the model's logits are not finite (log of their sum: {total})")
        if self._temperature == 0:
            token = int(logits.argmax())
        else:
            # The largest becomes 0 first: what is divided by a small temperature then only falls.
            token = self._draw(((logits - logits.max()) / self._temperature).softmax(-1).cpu())
        return token, float(logits[token]) - total

    def _draw(self, probabilities: torch.Tensor) -> int:
        if self._top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            # A token stays while the mass before it is below top_p, so that the likeliest always stays.
            kept = ordered.cumsum(-1) - ordered < self._top_p
            kept[0] = True  # where top_p is below the smallest float32, no mass is below it
            probabilities = torch.zeros_like(probabilities).scatter_(0, order[kept], ordered[kept])
        return int(torch.multinomial(probabilities, 1, generator=self._random))
