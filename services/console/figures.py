"""What the health page shows of a service's metrics: how far it lags, how full it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from services.console.viewer import Viewer

__all__ = ["Figure", "figures_in", "figures_of"]

MEMORY: Final = ("low", "medium", "high", "critical")
SHOWN: Final = {
    "lorafleet_consumer_lag": "waiting for a consumer",
    "lorafleet_outbox_waiting": "in the outbox",
    "lorafleet_inference_rows": "answers",
    "lorafleet_inference_rows_limit": "answers at once, at most",
    "lorafleet_inference_slots_used": "slots",
    "lorafleet_inference_memory_pressure": "memory pressure",
    "lorafleet_inference_memory_share": "memory used",
    "lorafleet_inference_prefix_bytes": "bytes of kept beginnings of prompts",
}
HITS: Final = {
    "lorafleet_inference_disk_cache": "adapters found on disk",
    "lorafleet_inference_prefix_tokens": "tokens of prompts found in the cache",
}
"""Counters with a label that is `hit` or `miss`: shown as a share."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`what`, of which (`of`: a consumer, a base model and a state), and its value for people."""

    what: str
    of: str
    value: str


async def figures_of(viewer: Viewer, service: str) -> list[Figure] | None:
    """What a service measures of itself now, nothing while it is unavailable; None where the viewer may not read it."""
    try:
        answer = await viewer.service.http.get(
            f"{viewer.service.settings.service_url(service)}/metrics",
            headers={"Authorization": f"Bearer {viewer.token}"},
            timeout=5,
        )
        if answer.status_code in (401, 403):
            return None
        return list(figures_in(answer.text)) if answer.status_code == 200 else []
    except (httpx.HTTPError, ValueError):
        return []


def figures_in(text: str) -> Iterator[Figure]:
    """The figures of a Prometheus text, without consumers that do not lag; raises ValueError for text that is none."""
    for family in text_string_to_metric_families(text):
        if family.name in HITS:
            yield from _share(family.name, [(one.labels, one.value) for one in family.samples])
        for sample in family.samples if family.name in SHOWN else ():
            if family.name == "lorafleet_consumer_lag" and not sample.value:
                continue
            yield Figure(SHOWN[family.name], ", ".join(sample.labels.values()), _value(family.name, sample.value))


def _share(name: str, samples: list[tuple[dict[str, str], float]]) -> Iterator[Figure]:
    hits = sum(value for labels, value in samples if "hit" in labels.values())
    every = sum(value for labels, value in samples if {"hit", "miss"} & set(labels.values()))
    if every:
        yield Figure(HITS[name], "", f"{100 * hits / every:.0f} %")


def _value(name: str, value: float) -> str:
    if name.endswith("memory_pressure"):
        return MEMORY[min(max(int(value), 0), len(MEMORY) - 1)]
    return f"{100 * value:.0f} %" if name.endswith("_share") else f"{value:,.0f}"
