"""What expressions of Prometheus name, and what the code keeps."""

from __future__ import annotations

import re
from pathlib import Path

_METRIC = re.compile(r'(?:Counter|Gauge|Histogram)\(\s*"(lorafleet_[a-z_]+)"(.*?)\n?\)\n', re.DOTALL)
_OF_HISTOGRAMS = re.compile(r"_(bucket|count|sum)$")
OF_PROMETHEUS = {"le", "instance"}


def metrics_of(root: Path) -> dict[str, set[str]]:
    """Each metric of the code with its labels."""
    found = {}
    for folder in ("libs/fleet_kit", "services"):
        for path in (root / folder).rglob("*.py"):
            for name, rest in _METRIC.findall(path.read_text()):
                labels = re.search(r"\[([^\]]*)\]", rest)
                found[name] = set(re.findall(r'"([a-z_]+)"', labels[1])) if labels else set()
    return found


def named(expression: str) -> set[str]:
    """Metrics that an expression reads."""
    return {_OF_HISTOGRAMS.sub("", one) for one in re.findall(r"lorafleet_[a-z_]+", expression)}


def labels(expression: str) -> set[str]:
    """Labels by which it groups or selects, beside those that Prometheus adds."""
    grouped = re.findall(r"by \(([a-z_, ]+)\)", expression) + re.findall(r"[{,]([a-z_]+)=", expression)
    return {label.strip() for part in grouped for label in part.split(",")} - OF_PROMETHEUS
