"""`Penalties`: what makes a row's tokens likelier or less likely than the model has them."""

from collections.abc import Mapping, Sequence

import torch


class Penalties:
    """A row's bias and penalties, by what its prompt and answer have said so far.

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
        self._counts: torch.Tensor | None = None  # of the answer's tokens, [vocabulary], made where the logits are
        self._seen: torch.Tensor | None = None  # in prompt or answer, [vocabulary]

    @property
    def neutral(self) -> bool:
        """Does it change nothing?"""
        return not self._bias and self._repetition == 1 and not self._presence and not self._frequency

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """New logits, [vocabulary], float32. Raises IndexError for a bias of a token that the model has not."""
        if self._counts is None or self._seen is None:
            self._counts = torch.zeros_like(logits)
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            self._seen[torch.tensor(list(self._prompt_ids), device=logits.device)] = True
        changed = logits.clone()
        if self._bias:
            ids = torch.tensor(list(self._bias), device=logits.device)
            changed[ids] += torch.tensor(list(self._bias.values()), device=logits.device)
        if self._repetition != 1:
            penalised = torch.where(changed < 0, changed * self._repetition, changed / self._repetition)
            changed = torch.where(self._seen, penalised, changed)
        if self._presence or self._frequency:
            changed -= self._counts * self._frequency + (self._counts > 0) * self._presence
        return changed

    def said(self, token: int) -> None:
        """A token of the answer, of the vocabulary of the logits that were penalised."""
        assert self._counts is not None
        assert self._seen is not None
        self._counts[token] += 1
        self._seen[token] = True
