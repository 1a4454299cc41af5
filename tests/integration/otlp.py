"""An OpenTelemetry collector on loopback: takes what exporters send over OTLP/HTTP and keeps it."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as the wire has it; ids in hexadecimal, no parent is the empty text."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: dict[str, str | int]


@dataclass
class Collector:
    """What has been exported so far."""

    url: str
    spans: list[ReceivedSpan] = field(default_factory=list)
    metrics: dict[str, dict[str, Metric]] = field(default_factory=dict)
    """The newest of each name, by service."""
    logs: list[tuple[str, LogRecord]] = field(default_factory=list)
    """With the service."""
    faults: list[str] = field(default_factory=list)
    """Requests that are no OTLP."""

    def of(self, trace_id: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def take(self, path: str, body: bytes) -> bool:
        """Keep a request; False where this is no path of OTLP."""
        match path:
            case "/v1/traces":
                self._take_spans(body)
            case "/v1/metrics":
                for metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    held = self.metrics.setdefault(_service(metrics.resource), {})
                    held |= {one.name: one for scope in metrics.scope_metrics for one in scope.metrics}
            case "/v1/logs":
                for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                    service = _service(logs.resource)
                    self.logs += [(service, record) for scope in logs.scope_logs for record in scope.log_records]
            case _:
                return False
        return True

    def _take_spans(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.spans += [
                ReceivedSpan(
                    service=_service(resource.resource),
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    attributes={one.key: one.value.string_value or one.value.int_value for one in span.attributes},
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]


def _service(resource: Resource) -> str:
    return {one.key: one.value.string_value for one in resource.attributes}["service.name"]


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Serve on a free port until left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind = self.headers["Content-Type"]
            plain = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
            if kind != "application/x-protobuf" or not collector.take(self.path, plain):
                collector.faults.append(f"{self.path} {kind}")
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Not to the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield collector
        finally:
            server.shutdown()
            serving.join()
