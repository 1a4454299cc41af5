"""What the router answers for the similarities it found. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

TEMPERATURE = 0.04
"""Of the weights. On CLINC150 `val`, ten domains, the likelihood of the right one is highest at 0.03 to 0.05."""


class Outcome(StrEnum):
    """What to do with a query."""

    MATCH = "match"
    AMBIGUOUS = "ambiguous"
    """Several adapters suit it about as well."""
    ABSTAIN = "abstain"
    """No adapter: the base model's."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An adapter, its similarity with the query, and from which one on it counts.

    `refused`: the query's similarity with one that no adapter of the domain is to answer.
    """

    adapter_id: str
    family: str
    score: float
    threshold: float
    refused: float = -1.0

    @property
    def suits(self) -> bool:
        """Near enough, and nearer than to what was refused."""
        return self.score >= self.threshold and self.refused < self.score


@dataclass(frozen=True, slots=True)
class Decision:
    """`matches` suit the query, best first. `nearest` is the first of all, whether it suits or not. `margin` is how far
    it is before the second; None where there is no second."""

    outcome: Outcome
    matches: tuple[Candidate, ...]
    nearest: Candidate | None
    margin: float | None
    why: str


def decide(candidates: Sequence[Candidate], margin: float) -> Decision:
    """Those that suit, and what that means; several within `margin` of the best one are ambiguous."""
    ranked = sorted(candidates, key=lambda one: (-one.score, one.adapter_id))
    matches = tuple(one for one in ranked if one.suits)
    nearest = matches[0] if matches else ranked[0] if ranked else None
    others = [one for one in ranked if one is not nearest]
    apart = nearest.score - others[0].score if nearest and others else None
    if nearest is None:
        return Decision(Outcome.ABSTAIN, (), None, None, "there is no adapter to route to")
    if not matches:
        return Decision(Outcome.ABSTAIN, (), nearest, apart, _why_not(nearest))
    close = [one for one in matches if matches[0].score - one.score <= margin]
    if len(close) > 1:
        names = ", ".join(f"{one.adapter_id} {one.score:.3f}" for one in close)
        why = f"{len(close)} adapters are within {margin:g} of the best one: {names}"
        return Decision(Outcome.AMBIGUOUS, matches, nearest, apart, why)
    why = f"{nearest.adapter_id} is near enough: similarity {nearest.score:.3f}, its threshold {nearest.threshold:.3f}"
    return Decision(Outcome.MATCH, matches, nearest, apart, why)


def weights(matches: Sequence[Candidate]) -> list[float]:
    """How much each of the matches counts; together 1."""
    shares = [math.exp((one.score - matches[0].score) / TEMPERATURE) for one in matches]
    return [share / sum(shares) for share in shares]


def _why_not(nearest: Candidate) -> str:
    if nearest.score < nearest.threshold:
        return (
            f"{nearest.adapter_id} is the nearest and not near enough: similarity {nearest.score:.3f}, its threshold "
            f"{nearest.threshold:.3f}"
        )
    return (
        f"{nearest.adapter_id} has similarity {nearest.score:.3f}; a query that no adapter is to answer is nearer: "
        f"{nearest.refused:.3f}"
    )
