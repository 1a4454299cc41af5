"""Nothing of an exporter is loaded unless a collector is named, and one that is unavailable holds no process up."""

import os
import socket
import subprocess
import sys

PROGRAM = """
import sys
from fleet_kit.tracing import child_span, environment_of_child, trace_headers
with child_span("trainer", "train"):
    print(sorted(environment_of_child()), bool(trace_headers()))
print("opentelemetry.exporter" in sys.modules, "requests" in sys.modules)
"""
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def run(**environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM), env=kept | environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_without_a_collector_nothing_is_imported_and_nothing_reaches_a_subprocess() -> None:
    assert run(TRACEPARENT=PARENT) == ["[] False", "False False"]
    assert run(TRACEPARENT=PARENT, OTEL_EXPORTER_OTLP_ENDPOINT="") == ["[] False", "False False"]


def test_a_collector_that_takes_no_request_does_not_keep_a_process_from_ending() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        shown = run(TRACEPARENT=PARENT, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="600")
    assert shown == ["['OTEL_EXPORTER_OTLP_ENDPOINT', 'OTEL_EXPORTER_OTLP_TIMEOUT', 'TRACEPARENT'] True", "True True"]
