"""Which signals go to an OpenTelemetry collector: traces, metrics and logs, by the standard variables.

A signal is exported where `OTEL_EXPORTER_OTLP_ENDPOINT` or its own `OTEL_EXPORTER_OTLP_<SIGNAL>_ENDPOINT` is set,
unless `OTEL_<SIGNAL>_EXPORTER` is `none` or `OTEL_SDK_DISABLED` is `true`
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), by OTLP over HTTP with protobuf.
"""

import os
import threading
import time
from collections.abc import Callable
from enum import StrEnum

from opentelemetry.sdk.resources import Resource

__all__ = ["FLUSH_SECONDS", "Signal", "bounded", "exported", "resource_of"]

FLUSH_SECONDS = 3.0
"""How long the end of a process waits for a collector that does not answer."""


class Signal(StrEnum):
    """What is exported by itself."""

    TRACES = "TRACES"
    METRICS = "METRICS"
    LOGS = "LOGS"


def exported(signal: Signal) -> bool:
    """Whether this process's environment names a collector for the signal."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    switched_off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get(f"OTEL_{signal}_EXPORTER") == "none"
    )
    return not switched_off and any(os.environ.get(name) for name in names)


def resource_of(service: str) -> Resource:
    """Under which name a service's signals are found, beside `OTEL_RESOURCE_ATTRIBUTES`."""
    return Resource.create({"service.name": service, "service.namespace": "lorafleet"})


def bounded(*flushes: Callable[[], object], seconds: float = FLUSH_SECONDS) -> None:
    """Flush at the same time; returns after that many seconds at the latest."""
    # An exporter retries for longer than its timeout: left behind in a daemon thread, it ends with us.
    flushing = [threading.Thread(target=flush, daemon=True) for flush in flushes]
    for one in flushing:
        one.start()
    deadline = time.monotonic() + seconds
    for one in flushing:
        one.join(max(0.0, deadline - time.monotonic()))
