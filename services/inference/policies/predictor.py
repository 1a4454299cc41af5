"""Which adapter a caller is likely to request next, learned from the order of requests. Pure.

A Markov model of order two that backs off: how often each family came after the last two is smoothed by how often it
came after the last one, as if the shorter context had been seen `PRIOR` times (Dirichlet smoothing; MacKay and Peto,
1995). A little evidence therefore never gives a high probability. Within a workflow all callers' orders count, and a
caller's own count more. Older observations fade.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

PRIOR = 3.0
"""Observations that the shorter context stands for."""
DECAY = 0.97
"""What an observation still weighs when its context has been seen once more."""
SUCCESSORS = 16
"""Remembered of one context; the rarest is forgotten."""

K = TypeVar("K")
V = TypeVar("V")
Context = tuple[str, str, tuple[str, ...]]


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """Keeps the entries that were written last."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Observed:
    """What one request predicts. `likely`: family → probability of being next, those above the threshold, without
    the one just requested. `outcome`: whether what had been likely came; None where nothing had been."""

    likely: Mapping[str, float]
    outcome: Literal["hit", "miss"] | None


@dataclass(slots=True)
class _History:
    last: tuple[str, ...] = ()
    likely: frozenset[str] = field(default_factory=frozenset)


class Predictor:
    """Learns from each request. Remembers at most `contexts` contexts and as many callers."""

    def __init__(self, threshold: float = 0.7, contexts: int = 20_000) -> None:
        self._threshold = threshold
        self._counts: _Recent[Context, dict[str, float]] = _Recent(contexts)
        self._histories: _Recent[tuple[str, str], _History] = _Recent(contexts)

    def observe(self, caller: str, workflow: str, family: str) -> Observed:
        """A caller requested a family, within a workflow or none (empty)."""
        history = self._histories.get((caller, workflow)) or _History()
        for context in _contexts(caller, workflow, history.last):
            self._count(context, family)
        outcome: Literal["hit", "miss"] | None = None
        if history.likely:
            outcome = "hit" if family in history.likely else "miss"
        last = (*history.last, family)[-2:]
        likely = self._likely(_contexts(caller, workflow, last))
        likely.pop(family, None)
        self._histories[caller, workflow] = _History(last, frozenset(likely))
        return Observed(likely, outcome)

    def _count(self, context: Context, family: str) -> None:
        counts = {one: weight * DECAY for one, weight in self._counts.get(context, {}).items()}
        counts[family] = counts.get(family, 0.0) + 1.0
        if len(counts) > SUCCESSORS:
            del counts[min(counts, key=lambda one: counts[one])]
        self._counts[context] = counts

    def _likely(self, contexts: list[Context]) -> dict[str, float]:
        probabilities: dict[str, float] = {}
        for context in contexts:
            counts = self._counts.get(context, {})
            total = sum(counts.values()) + PRIOR
            probabilities = {
                one: (counts.get(one, 0.0) + PRIOR * probabilities.get(one, 0.0)) / total
                for one in counts.keys() | probabilities.keys()
            }
        return {one: probability for one, probability in probabilities.items() if probability > self._threshold}


def _contexts(caller: str, workflow: str, last: tuple[str, ...]) -> list[Context]:
    """From the most general to the most particular."""
    who = ["", caller] if workflow else [caller]
    return [(one, workflow, last[-order:]) for one in who for order in (1, 2) if len(last) >= order]
