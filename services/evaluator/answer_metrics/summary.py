"""Metrics over all samples of an evaluation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet_statistics.intervals import SCALE, Interval, mean_score
from services.evaluator.answer_metrics.measured import Measured


@dataclass(frozen=True)
class MetricSummary:
    """Mean of a metric over `samples`, 0 to 1; samples without a value (`missing`) count as missing evidence."""

    mean: Interval
    samples: int
    missing: int


def summarise_metrics(measured: Iterable[Mapping[str, Measured]], confidence: float) -> dict[str, MetricSummary]:
    """By metric, over the answers that it applies to; one without any value is left out."""
    by_name: dict[str, list[Measured]] = {}
    for of_answer in measured:
        for name, one in of_answer.items():
            by_name.setdefault(name, []).append(one)
    found = {}
    for name, values in sorted(by_name.items()):
        known = [one.value for one in values if one.value is not None]
        if not known:
            continue
        missing = len(values) - len(known)
        mean = mean_score([SCALE * value for value in known], confidence, missing)
        found[name] = MetricSummary(
            Interval(mean.value / SCALE, mean.low / SCALE, mean.high / SCALE), len(known), missing
        )
    return found
