"""What the parts of `benchmarks.serving` share: how much they measure, what they ask, and when."""

import asyncio
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving_load import LoadRequest, Outcome, load
from benchmarks.serving_stage import Stage, card
from fleet_cli.stack import Fleet
from fleet_events import v1
from lora_core.interop import to_peft

QUESTIONS = (
    "What can you help me with?",
    "Explain to a child why the sky is blue and why it turns red in the evening.",
    "Name three rivers.",
    "Write a short letter to a landlord about a heating that has not worked for two weeks, and ask for a date by which "
    "it will be repaired. Be polite but firm.",
    "How do I book a flight from Lisbon to Oslo with one stop and a window seat?",
    "Summarise: the tide rises and falls twice a day because the moon and the sun pull at the water of the oceans, and "
    "the shape of the coast decides how high it gets.",
    "Is it going to rain tomorrow?",
    "List the steps for changing a bicycle's inner tube.",
)


@dataclass(frozen=True)
class Effort:
    """How much is measured. rows: how many our engine decodes together. seconds: length of each timed load. streams:
    how many are held open beside active ones of so many tokens (`long_answer`)."""

    rounds: int
    rows: int
    requests: int
    tokens: int
    known: int
    slots: int
    seconds: float
    activations: int
    switches: int
    streams: int
    long_answer: int

    @classmethod
    def of(cls, quick: bool) -> "Effort":
        if quick:
            return cls(1, 8, 8, 4, 6, 3, 3, 1, 3, 20, 600)
        return cls(3, 32, 32, 64, 300, 16, 120, 7, 50, 996, 600)


@dataclass(frozen=True)
class Bench:
    """What every part of the benchmark needs."""

    fleet: Fleet
    model: Path
    folder: Path
    effort: Effort

    def peft(self, number: int) -> Path:
        """The adapter of this number as PEFT's folder."""
        path = self.folder / f"peft-{number}"
        if not path.exists():
            to_peft(card(self.model, number), path)
        return path


def percentiles(values: Sequence[float]) -> str:
    """p50 / p99 in milliseconds."""
    return f"{1000 * statistics.median(values):.0f} / {1000 * float(np.percentile(values, 99)):.0f}"


async def offered(at: Stage, requests: Sequence[LoadRequest], tokens: int) -> Outcome:
    """The load's outcome; an answer that failed fails the benchmark."""
    outcome = await asyncio.to_thread(load, at.service.url, at.token, requests, tokens)
    if outcome.failed:
        raise RuntimeError(f"{len(outcome.failed)} requests failed, the first: {outcome.failed[0]}")
    return outcome


async def resident(bench: Bench, at: Stage, count: int) -> list[v1.Adapter]:
    """So many adapters, activated and loaded."""
    adapters = []
    for number in range(count):
        artifact = await at.store(card(bench.model, number))
        adapters.append(at.adapter(artifact, f"d{number}"))
        await at.activate(adapters[-1])
    for adapter in adapters:
        await at.ready(adapter.adapter_id)
    return adapters


def arrivals(
    models: Sequence[str], rate: float, seconds: float, seed: int, zipf: float | None = None
) -> list[LoadRequest]:
    """Poisson arrivals; models are picked evenly, or by Zipf's law."""
    generator = random.Random(seed)
    weights = [1.0 if zipf is None else 1 / (place + 1) ** zipf for place in range(len(models))]
    requests: list[LoadRequest] = []
    at = 0.0
    while (at := at + generator.expovariate(rate)) < seconds or not requests:
        (model,) = generator.choices(models, weights)
        requests.append(LoadRequest(model, generator.choice(QUESTIONS), at))
    return requests
