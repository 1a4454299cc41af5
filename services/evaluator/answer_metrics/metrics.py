"""The metrics that the settings name, and what they make of an answer.

A plug-in is a function `metric(sample: GoldenSample, answer: str) -> float | None`, pure, with values from 0 to 1 and
None where it does not apply, under the entry point group `lorafleet.metrics`. It runs in a thread of the evaluator.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, cast

import numpy as np
import structlog

from services.evaluator.answer_metrics import command, text_metrics
from services.evaluator.answer_metrics.command import CommandSettings, MetricFault
from services.evaluator.answer_metrics.measured import Measured
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.openai_client import OpenAIClient

log = structlog.get_logger()

GROUP = "lorafleet.metrics"
EMBEDDING = "embedding_similarity"
ACCURACY = "golden_dataset_accuracy"
"""Every evaluation's: the fraction of passed samples. No metric may have its name."""
PureMetric = Callable[[GoldenSample, str], float | None]
BUILT_IN: Mapping[str, PureMetric] = {
    "exact_match": text_metrics.exact_match,
    "token_f1": text_metrics.token_f1,
    "rouge_l": text_metrics.rouge_l,
    "chrf": text_metrics.chrf,
    "json_validity": text_metrics.json_validity,
}


class UnknownMetric(ValueError):
    """The settings name a metric that there is not, or that cannot be loaded."""


class AnswerMetrics:
    """Measures every answer by the same metrics."""

    def __init__(self, names: Sequence[str], commands: Mapping[str, CommandSettings], embeddings_model: str) -> None:
        """Raises UnknownMetric."""
        self._pure = {name: _pure(name) for name in names if name != EMBEDDING}
        self._commands = dict(commands)
        self._embeddings_model = embeddings_model if EMBEDDING in names else ""
        if taken := sorted({ACCURACY, *names} & set(commands)):
            raise UnknownMetric(f"metric_commands: {taken[0]!r} is a metric already; choose another name")

    async def measure(self, sample: GoldenSample, answer: str, models: OpenAIClient) -> dict[str, Measured]:
        """By metric; one that does not apply to the sample is left out. Raises what `models` raises."""
        found: dict[str, Measured | None] = {}
        for name, metric in self._pure.items():
            found[name] = await _checked(asyncio.to_thread(metric, sample, answer), name)
        for name, settings in self._commands.items():
            found[name] = await _checked(command.measure(settings, sample, answer), name)
        if self._embeddings_model:
            vectors = await models.embed(self._embeddings_model, [sample.expected_output, answer])
            found[EMBEDDING] = Measured(_cosine(vectors[0], vectors[1]))
        return {name: measured for name, measured in found.items() if measured is not None}


def _pure(name: str) -> PureMetric:
    """A built-in metric, or the plug-in of that name."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = list(entry_points(group=GROUP, name=name))
    if len(found) != 1 or name == ACCURACY:
        known = ", ".join(sorted({*BUILT_IN, EMBEDDING, *(one.name for one in entry_points(group=GROUP))}))
        raise UnknownMetric(
            f"metrics: {name!r} is {'no metric' if not found else 'not to be had once'}; known: {known}"
        )
    try:
        return cast(PureMetric, found[0].load())
    except Exception as error:
        raise UnknownMetric(f"metrics: plug-in {name!r} ({found[0].value}) cannot be loaded: {error!r}") from error


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
