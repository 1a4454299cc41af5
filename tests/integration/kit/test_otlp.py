"""A service's metrics and the lines of its log at an OpenTelemetry collector, as they are at /metrics and in the log."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from tests.conftest import RunService
from tests.integration.otlp import running_collector

pytestmark = pytest.mark.integration
WARNING = 13


async def test_metrics_and_logs_reach_the_collector_and_a_request_is_in_all_three_signals(
    run_service: RunService, eventually: Callable[..., Any]
) -> None:
    with running_collector() as collector:
        async with run_service(
            "router", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_METRIC_EXPORT_INTERVAL="300"
        ) as router:
            for _ in range(3):
                assert (await router.client.get("/v1/no-such-place")).status_code == 404
            seen = (await router.client.get("/metrics")).text

            def counted() -> int:
                found = collector.metrics.get("router", {}).get("lorafleet_http_seconds")
                unmatched = [
                    point.count
                    for point in (found.histogram.data_points if found else [])
                    if ("route", "unmatched") in {(one.key, one.value.string_value) for one in point.attributes}
                ]
                return sum(unmatched)

            await eventually(lambda: counted() == 3)
        log = router.log
    assert collector.faults == []
    metrics = collector.metrics["router"]
    histogram = metrics["lorafleet_http_seconds"].histogram
    assert histogram.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    for point in histogram.data_points:
        assert sum(point.bucket_counts) == point.count
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    # Each series that Prometheus reads is there too, under the name that alerts and dashboards know.
    samples = set(re.findall(r"^([a-z]\w+)[{ ]", seen, re.MULTILINE))
    histograms = {name for name, one in metrics.items() if one.WhichOneof("data") == "histogram"}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    assert {name for name in samples - parts if not name.endswith("_created")} <= set(metrics)
    assert metrics["lorafleet_outbox_waiting"].WhichOneof("data") == "gauge"
    counters = [one for one in metrics.values() if one.WhichOneof("data") == "sum"]
    assert counters
    assert all(one.sum.is_monotonic and one.name.endswith("_total") for one in counters)

    lines = [record for service, record in collector.logs if service == "router"]
    started = next(record for record in lines if record.body.string_value == "service_started")
    assert (started.severity_text, started.severity_number) == ("info", 9)
    assert "service_started" in log  # and it is still written


async def test_logs_alone_are_sent_where_only_they_have_a_collector(
    run_service: RunService, eventually: Callable[..., Any]
) -> None:
    with running_collector() as collector:
        named = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{collector.url}/v1/logs", "OTEL_BLRP_SCHEDULE_DELAY": "100"}
        async with run_service("router", **named) as router:
            await router.client.get("/v1/no-such-place")
            await eventually(lambda: collector.logs)
    assert (collector.spans, collector.metrics, collector.faults) == ([], {}, [])
