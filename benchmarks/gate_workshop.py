"""Trains the adapters that the gates decide on."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import gate_world as world
from benchmarks.training_proof import train
from lora_core import LoRACard
from services.trainer.datasets.records import Kind, Record, prompt_messages
from services.trainer.training.configuration import Configuration

__all__ = ["STEPS", "Workshop"]

STEPS = 90


@dataclass
class Workshop:
    """Trains what is requested, each once, one after another."""

    model: Path
    folder: Path

    def __post_init__(self) -> None:
        self.learnt = cache(self._learnt)
        self._free = asyncio.Lock()

    async def make(self, training: Callable[[], LoRACard]) -> LoRACard:
        """In a thread; trainings take all processors."""
        async with self._free:
            return await asyncio.to_thread(training)

    def _learnt(self, seed: int) -> LoRACard:
        return self.trained(world.pairs(world.FACTS), seed)

    def trained(self, pairs: list[tuple[str, str]], seed: int, steps: int = STEPS) -> LoRACard:
        records = [Record(Kind.COMPLETION, prompt_messages(prompt), (completion,)) for prompt, completion in pairs]
        configuration = Configuration(
            rank=16, alpha=32.0, max_steps=steps, batch_size=8, learning_rate=2e-3, max_length=96, seed=seed
        )
        work = self.folder / f"training-{time.monotonic_ns()}"
        return train(self.model, work, records, configuration).card

    def noisy(self, number: int) -> LoRACard:
        """Noise several times as large as the weights: under noise of their own size an adapter still knew it all."""
        draw, size = np.random.default_rng(number), 4.0 + number

        def disturb(array: np.ndarray) -> np.ndarray:
            noise = draw.normal(0, size * float(array.std()), array.shape)
            return (array + noise).astype(array.dtype)

        card = self.learnt(number % 2)
        weights = {name: replace(w, a=disturb(w.a), b=disturb(w.b)) for name, w in card.weights.items()}
        return replace(card, weights=weights)

    def half_trained(self, number: int) -> LoRACard:
        return self.trained(world.pairs(world.FACTS), number, steps=3 + number)

    def of_another_domain(self, number: int) -> LoRACard:
        return self.trained(world.pairs(world.ELSEWHERE), number)

    def of_altered_facts(self, number: int) -> LoRACard:
        """Of eight facts three to eight are others than the golden ones."""
        altered = list(world.FACTS)[: 3 + number % 6]
        return self.trained(world.pairs(world.FACTS | {topic: world.ALTERED[topic] for topic in altered}), number)

    def overfit(self, number: int) -> LoRACard:
        """Two facts in one wording, for as long as the others took for all."""
        topics = list(world.FACTS)[number : number + 2]
        return self.trained(world.pairs({t: world.FACTS[t] for t in topics}, world.WORDINGS[:1]), number)

    def merged_away(self, number: int) -> LoRACard:
        """A mean with so many empty adapters that little of it is left."""
        card = self.learnt(number % 2)
        return replace(card, alpha=card.alpha * (0.02 + 0.01 * number))
