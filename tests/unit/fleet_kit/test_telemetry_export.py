"""Metrics and logs cost nothing without a collector, and one that is unavailable holds no process up."""

import os
import socket
import subprocess
import sys
import time

PROGRAM = """
import sys, time
from fleet_kit import telemetry
import structlog
telemetry.configure("router", "INFO")
structlog.get_logger().info("began")
loaded = [name for name in ("opentelemetry.exporter", "opentelemetry.sdk._logs", "requests") if name in sys.modules]
started = time.monotonic()
telemetry.flush()
print(loaded, time.monotonic() - started < 5)
"""


def run(**environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM), env=kept | environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()[-1]


def test_without_a_collector_no_exporter_is_imported() -> None:
    assert run() == "[] True"
    assert run(OTEL_EXPORTER_OTLP_ENDPOINT="") == "[] True"


def test_each_signal_can_be_switched_off() -> None:
    off = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    assert run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", **off) == "[] True"
    assert run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_SDK_DISABLED="true") == "[] True"


def test_a_collector_that_takes_no_request_holds_a_process_up_for_seconds_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        shown = run(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="600")
    assert shown == "['opentelemetry.exporter', 'opentelemetry.sdk._logs', 'requests'] True"
    assert time.monotonic() - began < 30
