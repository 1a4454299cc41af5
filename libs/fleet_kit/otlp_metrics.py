"""The Prometheus metrics of a process, sent to an OpenTelemetry collector too, under the same names and labels."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from os import environ
from typing import TYPE_CHECKING

import structlog
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleet_kit.faults import describe
from fleet_kit.otlp import Signal, bounded, exported, resource_of

if TYPE_CHECKING:  # what exports nothing needs no exporter in memory
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
    from opentelemetry.sdk.metrics.export import Metric as Exported
    from opentelemetry.sdk.resources import Resource

__all__ = ["MetricsExport", "export_metrics", "flush_metrics"]

log = structlog.get_logger()
_STARTED = time.time_ns()
"""From which counters and histograms count."""
_running: list["MetricsExport"] = []


def export_metrics(service: str) -> None:
    """Begin to send the metrics where a collector is named: every `OTEL_METRIC_EXPORT_INTERVAL` ms (60,000)."""
    if exported(Signal.METRICS) and not _running:
        _running.append(MetricsExport(service))
        _running[0].start()


def flush_metrics() -> None:
    """Send them once more; returns after `otlp.FLUSH_SECONDS` at the latest."""
    for one in _running:
        bounded(one.send)


class MetricsExport:
    """Reads the registry and sends what it finds, in a thread of its own."""

    def __init__(self, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        self._exporter = OTLPMetricExporter()
        self._resource = resource_of(service)
        self._seconds = int(environ.get("OTEL_METRIC_EXPORT_INTERVAL") or 60_000) / 1000
        self._lock = threading.Lock()

    def start(self) -> None:
        """Send again and again for as long as the process lives."""
        threading.Thread(target=self._run, name="metrics-export", daemon=True).start()

    def send(self) -> None:
        """Send the metrics as they are now. The exporter logs what the collector refuses."""
        with self._lock:
            self._exporter.export(metrics_data(REGISTRY, self._resource))

    def _run(self) -> None:
        while True:
            time.sleep(self._seconds)
            try:
                self.send()
            except Exception as error:
                # A metric that cannot be read must not end the export of the others for good.
                log.warning("metrics_not_exported", reason=describe(error))


def metrics_data(registry: Collector, resource: "Resource") -> "MetricsData":
    """All metrics of a registry, cumulative, as OpenTelemetry has them."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()
    metrics = [made for family in registry.collect() for made in _exported(family, now)]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(InstrumentationScope("lorafleet"), metrics, "")], "")])


def _exported(family: Metric, now: int) -> Iterable["Exported"]:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, NumberDataPoint, Sum
    from opentelemetry.sdk.metrics.export import Metric as Exported

    cumulative = AggregationTemporality.CUMULATIVE
    match family.type:
        case "counter":
            name = f"{family.name}_total"
            points = [
                NumberDataPoint(one.labels, _STARTED, now, one.value) for one in family.samples if one.name == name
            ]
            yield Exported(name, family.documentation, "", Sum(points, cumulative, is_monotonic=True))
        case "histogram":
            yield Exported(family.name, family.documentation, "", Histogram(_histograms(family, now), cumulative))
        case _:
            by_name: dict[str, list[NumberDataPoint]] = defaultdict(list)
            for one in family.samples:
                by_name[one.name].append(NumberDataPoint(one.labels, _STARTED, now, one.value))
            for name, points in by_name.items():
                yield Exported(name, family.documentation, "", Gauge(points))


def _histograms(family: Metric, now: int) -> list["HistogramDataPoint"]:
    """One point for each set of labels. Prometheus counts a bucket with all those below it, OpenTelemetry without."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
    sums: dict[tuple[tuple[str, str], ...], float] = defaultdict(float)
    for one in family.samples:
        labels = tuple(sorted((name, value) for name, value in one.labels.items() if name != "le"))
        if one.name == f"{family.name}_bucket":
            buckets[labels].append((float(one.labels["le"]), one.value))
        elif one.name == f"{family.name}_sum":
            sums[labels] = one.value
    points = []
    for labels, below in buckets.items():
        below.sort()
        counts = [int(count - before) for (_, count), (_, before) in zip(below, [(0.0, 0.0), *below], strict=False)]
        points.append(
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=_STARTED,
                time_unix_nano=now,
                count=sum(counts),
                sum=sums[labels],
                bucket_counts=counts,
                explicit_bounds=[bound for bound, _ in below[:-1]],  # the last one is infinite
                min=None,  # type: ignore[arg-type]  # the field is optional on the wire, and Prometheus has none
                max=None,  # type: ignore[arg-type]
            )
        )
    return points
