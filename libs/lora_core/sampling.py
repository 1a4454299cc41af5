"""The parameters of a generation, and how tokens are picked from logits."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeAlias

import torch

from lora_core.generation_settings import GenerationSettings
from lora_core.penalties import Penalties

if TYPE_CHECKING:
    from lora_core.grammar import Constraint, Grammar

Adapters: TypeAlias = str | Mapping[str, float] | None
"""A row's adapter: the name of a loaded one, up to three of them with their weights, or None for the base model."""


GREEDY_BELOW = 1e-4
"""Temperatures below this are greedy, which is their limit: dividing by less leaves the range of float32."""


class BrokenLogits(ArithmeticError):
    """A row's logits are no numbers: its weights, its adapter or its prompt have left the range of the data type."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the tokens of an answer are drawn and when it ends: one class from the HTTP API to the engine.

    max_tokens: 0 draws none, for a caller that only scores its prompt.
    temperature: 0 to `GREEDY_BELOW` is greedy. top_k: only so many of the likeliest tokens, 0 for all. top_p: nucleus
    sampling (Holtzman et al. 2020, arXiv:1904.09751). min_p: only tokens with at least this share of the likeliest
    one's probability (Nguyen et al. 2024, arXiv:2407.01082). They apply in this order, as in transformers.
    seed: the same seed gives the same tokens, independent of the rest of the batch; None picks one.
    stop_ids: tokens that end the answer (not part of it); None for the model's own. extra_stop_ids: further ones.
    repetition_penalty: None for the model's own. The penalties and logit_bias: see `Penalties`.
    alternatives: how many of the likeliest tokens are kept of each step, see `Batch.alternatives`.
    grammar: the form that the answer has as a whole, unless `max_tokens` ends it earlier. It applies after bias and
    penalties, before the temperature.

    Raises ValueError naming the first value that is out of range.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: Collection[int] | None = None
    extra_stop_ids: Collection[int] = ()
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    alternatives: int = 0
    grammar: "Grammar | None" = None

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected at least 0")
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature is {self.temperature}, expected 0 to 100")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected more than 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}, expected 0 to 1")
        if self.top_k < 0 or self.alternatives < 0:
            raise ValueError(f"top_k is {self.top_k}, alternatives is {self.alternatives}, expected at least 0")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}, expected a number above 0")

    def stops(self, own: Collection[int]) -> frozenset[int]:
        """The tokens that end the answer of a model whose own these are."""
        return frozenset(own if self.stop_ids is None else self.stop_ids).union(self.extra_stop_ids)

    def request(self, prompt_ids: Sequence[int], adapter: Adapters = None, scope: str | None = None) -> "Request":
        """A row of a batch that is drawn so."""
        return Request(
            prompt_ids, adapter, scope, **{one.name: getattr(self, one.name) for one in fields(SamplingParams)}
        )


@dataclass(frozen=True)
class Request(SamplingParams):
    """One row of a batch. prompt_ids: at least one. adapter: see `Adapters`.

    scope: rows of one scope and the same adapters compute equal beginnings of prompts once, where the engine keeps
    such; None shares nothing. All else is given by name.
    """

    prompt_ids: Sequence[int]
    adapter: Adapters = None
    scope: str | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("prompt_ids is empty: expected at least one token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected at least 1")
        super().__post_init__()


class Sampler:
    """Picks the tokens of one row. own: what the model's makers set, for what the request leaves to them."""

    def __init__(self, request: Request, own: GenerationSettings | None = None) -> None:
        self._temperature = request.temperature if request.temperature >= GREEDY_BELOW else 0.0
        self._top_k, self._top_p, self._min_p = request.top_k, request.top_p, request.min_p
        self._alternatives = request.alternatives
        self.alternatives: tuple[tuple[int, float], ...] = ()
        """The likeliest tokens of the last step with their log-probabilities, as many as requested."""
        penalty = request.repetition_penalty
        penalties = Penalties(
            request.prompt_ids,
            bias=request.logit_bias,
            repetition=((own.repetition_penalty if own else None) or 1.0) if penalty is None else penalty,
            presence=request.presence_penalty,
            frequency=request.frequency_penalty,
        )
        self._penalties = None if penalties.neutral else penalties
        self._constraint: Constraint | None = None if request.grammar is None else request.grammar.begin()
        self._random = torch.Generator()
        if request.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(request.seed & 0xFFFF_FFFF_FFFF_FFFF)

    def pick(self, logits: torch.Tensor) -> tuple[int, float]:
        """Next token and its log-probability under the model itself: no penalties, temperature 1. logits: [vocabulary].

        Raises BrokenLogits if they are NaN or infinite; a token that cannot be drawn may have a logit of -inf.
        Raises FormBroken, see `Constraint`.
        """
        (found,) = pick_all([self], logits.unsqueeze(0))
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def likeliest(self) -> bool:
        """Is its token always the one that the model prefers?"""
        return self._temperature == 0 and self._penalties is None and self._constraint is None

    @property
    def finished(self) -> bool:
        """Whether the form of the answer lets nothing follow."""
        return self._constraint is not None and self._constraint.finished

    def _wanted(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits after penalties and form, the largest at 0 and divided by the temperature where tokens are drawn.

        The largest becomes 0 first: what is divided by a small temperature then only falls.
        """
        wanted = logits if self._penalties is None else self._penalties.apply(logits)
        if self._constraint is not None:
            wanted = self._constraint.apply(wanted)
        return wanted if self._temperature == 0 else (wanted - wanted.max()) / self._temperature

    def _record(self, token: int, logits: torch.Tensor, total: float) -> None:
        if self._penalties is not None:
            self._penalties.record(token)
        if self._constraint is not None:
            self._constraint.accept(token)
        if self._alternatives:
            found = logits.topk(min(self._alternatives, logits.shape[0]))
            likely = zip(found.indices.tolist(), found.values.tolist(), strict=True)
            self.alternatives = tuple((one, logit - total) for one, logit in likely)

    def _draw(self, probabilities: torch.Tensor) -> int:
        if self._top_k or self._top_p < 1 or self._min_p:
            ordered, order = probabilities.sort(descending=True)
            if self._top_k:
                ordered, order = ordered[: self._top_k], order[: self._top_k]
                ordered = ordered / ordered.sum()
            # A token stays while the mass before it is below top_p, so that the likeliest always stays.
            kept = ordered >= self._min_p * ordered[0]
            if self._top_p < 1:
                kept &= ordered.cumsum(-1) - ordered < self._top_p
            kept[0] = True  # where top_p is below the smallest float32, no mass is below it
            return int(order[kept][self._one_of(ordered[kept])])
        return self._one_of(probabilities)

    def _one_of(self, probabilities: torch.Tensor) -> int:
        """A place, drawn by these weights with one random number; never one of weight 0."""
        reached = probabilities.cumsum(-1, dtype=torch.float64)
        at = torch.rand((), generator=self._random, dtype=torch.float64) * reached[-1]
        place = int(torch.searchsorted(reached, at, right=True))
        return place if place < len(reached) else int(probabilities.nonzero()[-1])


Pick: TypeAlias = tuple[int, float] | Exception
"""A row's next token with its log-probability, or what the row failed with."""


def pick_all(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[Pick]:
    """What `Sampler.pick` gives, for all rows of [rows, vocabulary] at once; a row that fails fails alone."""
    logits = logits.float()
    totals: list[float] = logits.logsumexp(-1).tolist()
    best: list[int] = logits.max(-1).indices.tolist() if any(one.likeliest for one in samplers) else [0] * len(samplers)
    found: list[int | Exception] = []
    drawn: dict[int, torch.Tensor] = {}
    for row, (sampler, total) in enumerate(zip(samplers, totals, strict=True)):
        found.append(best[row])
        if not math.isfinite(total):
            found[row] = BrokenLogits(f"the model's logits are not finite (log of their sum: {total})")
        elif not sampler.likeliest:
            try:
                wanted = sampler._wanted(logits[row])
                if sampler._temperature == 0:
                    found[row] = int(wanted.argmax())
                else:
                    drawn[row] = wanted
            except Exception as fault:
                found[row] = fault
    if drawn:
        probabilities = torch.stack(list(drawn.values())).softmax(-1).cpu()
        for row, own in zip(drawn, probabilities, strict=True):
            try:
                found[row] = samplers[row]._draw(own)
            except Exception as fault:
                found[row] = fault
    tokens = [0 if isinstance(one, Exception) else one for one in found]
    chosen: list[float] = logits.gather(1, torch.tensor(tokens, device=logits.device).unsqueeze(1))[:, 0].tolist()
    picks: list[Pick] = []
    for row, one in enumerate(found):
        if isinstance(one, Exception):
            picks.append(one)
            continue
        try:
            samplers[row]._record(one, logits[row], totals[row])
            picks.append((one, chosen[row] - totals[row]))
        except Exception as fault:
            picks.append(fault)
    return picks
