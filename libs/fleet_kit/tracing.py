"""Traces: W3C trace context through HTTP, events and subprocesses, and their spans to an OpenTelemetry collector.

Spans are exported where `otlp` finds a collector; the other variables of the exporter and of the sampler count too
(https://opentelemetry.io/docs/specs/otel/protocol/exporter/). Without it nothing is imported, kept or sent for them:
trace ids are in the logs and travel on.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fleet_kit.otlp import Signal, bounded, exported, resource_of

__all__ = [
    "SpanKind",
    "child_span",
    "configure_tracing",
    "environment_of_child",
    "flush_spans",
    "span",
    "trace_headers",
]

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("lorafleet")


def configure_tracing(service: str) -> None:
    """Give spans the service's name, once a process, and export them where a collector is named."""
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    # Not at exit: a collector that is unavailable would hold the process up. `flush_spans` is bounded.
    provider = TracerProvider(resource=resource_of(service), shutdown_on_exit=False)
    if exported(Signal.TRACES):
        # Imported here: what exports nothing needs neither the exporter nor its HTTP client in memory.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush_spans() -> None:
    """Send the spans that have ended; returns after `otlp.FLUSH_SECONDS` at the latest."""
    provider = trace.get_tracer_provider()
    if exported(Signal.TRACES) and isinstance(provider, TracerProvider):
        bounded(provider.force_flush)


@contextmanager
def span(
    name: str,
    headers: Mapping[str, str],
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator[Span]:
    """Continue the trace that the headers carry, or begin one.

    Args:
        name: of the span: of few values, without ids.
        headers: of the request or the event; names in lower case.
        kind: SERVER for a request, CONSUMER for an event.
        attributes: by OpenTelemetry's semantic conventions, where they name one.
    """
    context = _propagator.extract(dict(headers))
    with _tracer.start_as_current_span(name, context=context, kind=kind, attributes=attributes) as current:
        yield current


def trace_headers() -> dict[str, str]:
    """The current trace as headers, empty outside of one."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def environment_of_child() -> dict[str, str]:
    """Variables with which a subprocess continues the current trace; empty where nothing is exported.

    `TRACEPARENT` and `TRACESTATE` as in
    https://opentelemetry.io/docs/specs/otel/context/env-carriers/, and all `OTEL_` variables of this process.
    """
    if not exported(Signal.TRACES):
        return {}
    settings = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    return settings | {name.upper(): value for name, value in trace_headers().items()}


@contextmanager
def child_span(service: str, name: str) -> Iterator[None]:
    """In a subprocess: a span of the trace that its parent's `environment_of_child` began, sent when it ends."""
    headers = {name.lower(): os.environ[name] for name in ("TRACEPARENT", "TRACESTATE") if name in os.environ}
    if not headers or not exported(Signal.TRACES):
        yield
        return
    configure_tracing(service)
    try:
        with span(name, headers):
            yield
    finally:
        flush_spans()
