"""Metrics of third parties, as entry points: called in the evaluator, or confined in a process of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from services.evaluator.answer_metrics.command import MetricFault
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.sandbox import sandbox
from services.evaluator.sandbox.sandbox import Limits, SandboxUnavailable, Stopped

GROUP = "lorafleet.metrics"
PureMetric = Callable[[GoldenSample, str], float | None]
_PROCESS = Path(__file__).with_name("plug_in_process.py")
_OWN = ("services", "fleet_events", "fleet_kit", "linear_regex")
"""Packages of the fleet that a sample is made of."""


class UnknownMetric(ValueError):
    """The settings name a metric that there is not, or that cannot be loaded."""


def entry_point(name: str, known: str) -> EntryPoint:
    """The one entry point of that name. Raises UnknownMetric, with the names that are `known`."""
    found = list(entry_points(group=GROUP, name=name))
    if len(found) != 1:
        raise UnknownMetric(
            f"metrics: {name!r} is {'no metric' if not found else 'not to be had once'}; known: {known}"
        )
    return found[0]


def loaded(found: EntryPoint) -> PureMetric:
    """The plug-in's function, to be called in this process. Raises UnknownMetric."""
    try:
        return cast(PureMetric, found.load())
    except Exception as error:
        raise UnknownMetric(f"metrics: plug-in {found.name!r} ({found.value}) cannot be loaded: {error!r}") from error


async def measure(found: EntryPoint, limits: Limits, sample: GoldenSample, answer: str) -> object:
    """What the plug-in gives, called in the sandbox. Raises MetricFault."""
    order = json.dumps({"sample": asdict(sample), "answer": answer}, ensure_ascii=False).encode()
    program = [sys.executable, "-I", str(_PROCESS), json.dumps(sys.path), f"{found.module}:{found.attr}"]
    try:
        ended = await sandbox.run(program, order, limits, _reads(found), sys.path)
    except (Stopped, SandboxUnavailable) as fault:
        raise MetricFault(str(fault)) from None
    if ended.status != 0:
        last = (ended.output or ended.errors).decode(errors="replace").strip().rpartition("\n")[2]
        raise MetricFault(last[:300] or f"exited with status {ended.status}")
    value: object = json.loads(ended.output)
    return value


def _reads(found: EntryPoint) -> list[str]:
    """The interpreter with its packages, the fleet's own that samples need, and the plug-in's top package."""
    folders = list(sandbox.interpreter_folders())
    for package in (*_OWN, found.module.partition(".")[0]):
        spec = find_spec(package)
        if spec is None:
            continue
        inside = list(spec.submodule_search_locations or ())
        folders += inside or ([spec.origin] if spec.origin else [])
    return [*folders, str(_PROCESS)]
