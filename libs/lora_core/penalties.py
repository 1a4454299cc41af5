"""`Penalties`: what makes a row's tokens likelier or less likely than the model has them."""

from collections.abc import Mapping, Sequence

import torch


class Penalties:
    """A row's bias and penalties, by the tokens of its prompt and answer so far.

    bias: token → added to its logit. repetition: logits of tokens of prompt and answer are divided by it where they are
    positive, multiplied where negative (Keskar et al. 2019, arXiv:1909.05858; as transformers does). presence and
    frequency: subtracted from logits of the answer's tokens, once and for each time (OpenAI's API reference). In this
    order, which is vLLM's.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        *,
        bias: Mapping[int, float],
        repetition: float = 1.0,
        presence: float = 0.0,
        frequency: float = 0.0,
    ) -> None:
        self._prompt_ids, self._bias = prompt_ids, bias
        self._repetition, self._presence, self._frequency = repetition, presence, frequency
        self._row: _Row | None = None

    @property
    def neutral(self) -> bool:
        """Does it change nothing?"""
        return not self._bias and self._repetition == 1 and not self._presence and not self._frequency

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """New logits, [vocabulary], float32. Raises IndexError for a bias of a token that the model has not."""
        row = self._row
        if row is None:
            row = self._row = _Row(logits, self._prompt_ids, self._bias)
        changed = logits + row.bias
        if self._repetition != 1:
            penalised = torch.where(changed < 0, changed * self._repetition, changed / self._repetition)
            changed = torch.where(row.seen, penalised, changed)
        if self._presence or self._frequency:
            changed -= row.counts * self._frequency + (row.counts > 0) * self._presence
        return changed

    def record(self, token: int) -> None:
        """A token of the answer: one of the logits that were penalised."""
        assert self._row is not None
        self._row.counts[token] += 1
        self._row.seen[token] = True


class _Row:
    """[vocabulary] each, where the logits are: the bias, is a token in prompt or answer, how often in the answer."""

    def __init__(self, logits: torch.Tensor, prompt_ids: Sequence[int], bias: Mapping[int, float]) -> None:
        self.bias, self.counts = torch.zeros_like(logits), torch.zeros_like(logits)
        self.seen = torch.zeros_like(logits, dtype=torch.bool)
        self.seen[torch.tensor(list(prompt_ids), device=logits.device)] = True
        for token, added in bias.items():
            self.bias[token] = added
