"""What the parts of `benchmarks.serving_profile` share: engines, prompts, and how much is measured."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving_stage import card
from lora_core import ArrowEngine, Request, base_model
from lora_core.device import Weights
from lora_core.grammar import Grammar

ADAPTERS = [f"a{number}" for number in range(8)]


@dataclass(frozen=True)
class Effort:
    """Steps in turns; rows of the largest batch; tokens of the shared prompt and of each answer; HTTP requests;
    adapters whose answers are compared by weights; runs beside an earlier revision."""

    steps: int
    rows: int
    system: int
    answer: int
    firsts: int
    judged: int
    builds: int

    @classmethod
    def of(cls, quick: bool) -> "Effort":
        return cls(1, 8, 64, 2, 1, 1, 1) if quick else cls(7, 32, 512, 32, 15, 4, 5)


@dataclass
class Bench:
    """The base model's folder, and one engine for each kind of weights that a part needs."""

    model: Path
    effort: Effort
    _engines: dict[tuple[Weights, int], ArrowEngine] = field(default_factory=dict)

    def engine(self, weights: Weights, prefix_bytes: int = 0) -> ArrowEngine:
        """With eight adapters of rank 16 on every projection."""
        if (weights, prefix_bytes) not in self._engines:
            model, tokenizer = base_model.load(self.model, weights)
            made = ArrowEngine(model, tokenizer, slots=16, max_rank=16, prefix_bytes=prefix_bytes)
            for number, name in enumerate(ADAPTERS):
                made.load(card(self.model, number), name)
            self._engines[weights, prefix_bytes] = made
        return self._engines[weights, prefix_bytes]


def prompt(tokens: int, seed: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(100, 40_000) for _ in range(tokens)]


def requests(rows: int, *, adapters: bool, grammar: Grammar | None = None, constrained: int = 0) -> list[Request]:
    """Rows that never end, of 8 to 39 tokens; the last `constrained` of them follow a form."""
    return [
        Request(
            prompt(8 + 7 * row % 32, row),
            ADAPTERS[row % 8] if adapters else None,
            max_tokens=10**6,
            stop_ids=(),
            grammar=grammar if row >= rows - constrained else None,
        )
        for row in range(rows)
    ]


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
