"""The metrics that the settings name, and what they make of an answer.

A plug-in is a function `metric(sample: GoldenSample, answer: str) -> float | None`, pure, with values from 0 to 1 and
None where it does not apply, under the entry point group `lorafleet.metrics`. It runs in a thread of the evaluator, or,
where the settings confine it, in a process of its own in the sandbox.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import structlog

from services.evaluator.answer_metrics import command, plug_in, text_metrics
from services.evaluator.answer_metrics.command import CommandSettings, MetricFault
from services.evaluator.answer_metrics.measured import Measured
from services.evaluator.answer_metrics.plug_in import GROUP, PureMetric, UnknownMetric
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.sandbox.sandbox import Limits

log = structlog.get_logger()

EMBEDDING = "embedding_similarity"
INVERSE_PERPLEXITY = "inverse_perplexity"
OF_INFERENCE = frozenset({EMBEDDING, INVERSE_PERPLEXITY})
"""Metrics that inference computes; not among the default ones."""
AT_ONCE = 2
"""Confined plug-ins side by side: each may take its memory."""
ACCURACY = "golden_dataset_accuracy"
"""Every evaluation's: the fraction of passed samples. No metric may have its name."""
BUILT_IN: Mapping[str, PureMetric] = {
    "exact_match": text_metrics.exact_match,
    "token_f1": text_metrics.token_f1,
    "rouge_l": text_metrics.rouge_l,
    "chrf": text_metrics.chrf,
    "json_validity": text_metrics.json_validity,
}


class AnswerMetrics:
    """Measures every answer by the same metrics."""

    def __init__(
        self,
        names: Sequence[str],
        commands: Mapping[str, CommandSettings],
        embeddings_model: str,
        *,
        confined: Sequence[str] = (),
        unavailable: str = "",
    ) -> None:
        """Plug-ins among `confined` run in the sandbox; `unavailable` is why there is none. Raises UnknownMetric."""
        if (sandboxed := [*confined, *(name for name, one in commands.items() if one.confined)]) and unavailable:
            raise UnknownMetric(f"{sandboxed[0]!r} cannot be confined on this machine: {unavailable}")
        if ACCURACY in names:
            raise UnknownMetric(f"metrics: {ACCURACY!r} is always there; leave it out")
        if wrong := [name for name in confined if name not in names or name in BUILT_IN or name in OF_INFERENCE]:
            raise UnknownMetric(f"confined_metrics: {wrong[0]!r} is no plug-in among metrics")
        self._pure = {name: _pure(name) for name in names if name not in {*OF_INFERENCE, *confined}}
        self._confined = {name: plug_in.entry_point(name, _known()) for name in confined}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._commands = dict(commands)
        self._embeddings_model = embeddings_model if EMBEDDING in names else ""
        self._perplexity = INVERSE_PERPLEXITY in names
        if taken := sorted({ACCURACY, *names} & set(commands)):
            raise UnknownMetric(f"metric_commands: {taken[0]!r} is a metric already; choose another name")

    async def measure(
        self, sample: GoldenSample, answer: str, models: OpenAIClient, adapter_id: str
    ) -> dict[str, Measured]:
        """By metric of that version's answer; one that does not apply to the sample is left out. Raises what `models`
        raises."""
        found: dict[str, Measured | None] = {}
        for name, metric in self._pure.items():
            found[name] = await _checked(asyncio.to_thread(metric, sample, answer), name)
        for name, entry in self._confined.items():
            async with self._places:
                found[name] = await _checked(plug_in.measure(entry, Limits(), sample, answer), name)
        for name, settings in self._commands.items():
            found[name] = await _checked(command.measure(settings, sample, answer), name)
        if self._embeddings_model:
            vectors = await models.embed(self._embeddings_model, [sample.expected_output, answer])
            found[EMBEDDING] = Measured(_cosine(vectors[0], vectors[1]))
        if self._perplexity:
            found[INVERSE_PERPLEXITY] = await _inverse_perplexity(sample, models, adapter_id)
        return {name: measured for name, measured in found.items() if measured is not None}


async def _inverse_perplexity(sample: GoldenSample, models: OpenAIClient, adapter_id: str) -> Measured | None:
    question = "\n".join(text for text in (sample.system, sample.transcript, sample.prompt) if text)
    mean = await models.likelihood(adapter_id, question, sample.expected_output, adapter_id=adapter_id)
    return None if mean is None else Measured(math.exp(min(0.0, mean)))


def _pure(name: str) -> PureMetric:
    """A built-in metric, or the plug-in of that name."""
    return BUILT_IN[name] if name in BUILT_IN else plug_in.loaded(plug_in.entry_point(name, _known()))


def _known() -> str:
    return ", ".join(sorted({*BUILT_IN, *OF_INFERENCE, *(one.name for one in entry_points(group=GROUP))} - {ACCURACY}))


async def _checked(running: Awaitable[Any], name: str) -> Measured | None:
    """What a metric gave, if that is a value; what a plug-in raises costs its own value alone."""
    try:
        value = await running
    except MetricFault as fault:
        return Measured(None, str(fault))
    except Exception as error:
        log.warning("metric_failed", metric=name, error=repr(error))
        return Measured(None, repr(error)[:300])
    if value is None:
        return None
    if isinstance(value, bool | int | float) and math.isfinite(value) and 0 <= value <= 1:
        return Measured(float(value))
    return Measured(None, f"gave {value!r}"[:300] + "; expected a number from 0 to 1, or None")


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """0 for opposite or unrelated directions, 1 for the same."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return min(1.0, max(0.0, float(a @ b) / size)) if size > 1e-12 else 0.0
