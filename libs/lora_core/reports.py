"""What the engine reports of an adapter and of a generation."""

from dataclasses import dataclass

from lora_core.batch import FinishReason


@dataclass(frozen=True)
class Effect:
    """The next token's distribution with an adapter against the base model's.

    logit: largest absolute difference of a logit. divergence: Kullback–Leibler divergence, nats. An adapter that bound
    but changes nothing has 0 in both, but for rounding.
    """

    logit: float
    divergence: float


@dataclass(frozen=True)
class BindReport:
    """What loading an adapter bound: its slot, the modules it changes, its numbers, their bytes in the slot.

    effect: what it does to the next token after a probe prompt, where it was requested.
    """

    name: str
    slot: int
    modules: int
    parameters: int
    bytes: int
    digest: str
    effect: Effect | None = None


@dataclass(frozen=True)
class TopLogits:
    """The `top` largest logits of the last position, largest first: an adapter's fingerprint on a prompt."""

    token_ids: tuple[int, ...]
    logits: tuple[float, ...]

    def difference(self, other: "TopLogits") -> float:
        """Largest absolute difference over the tokens in both; infinite if they share none."""
        theirs = dict(zip(other.token_ids, other.logits, strict=True))
        pairs = zip(self.token_ids, self.logits, strict=True)
        return max((abs(value - theirs[token]) for token, value in pairs if token in theirs), default=float("inf"))


Probe = TopLogits
"""Its former name."""


@dataclass(frozen=True)
class Generation:
    """One finished row: its text, its tokens (without the stop token), their log-probabilities, and why it ended."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
