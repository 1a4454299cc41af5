"""Structured logs with trace ids, and W3C trace context that travels in HTTP and event headers."""

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["configure", "span", "trace_headers"]

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("lorafleet")


def _with_trace(_logger: object, _method: str, fields: MutableMapping[str, object]) -> MutableMapping[str, object]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields["trace_id"] = format(context.trace_id, "032x")
    return fields


def configure(service: str, level: str) -> None:
    """One JSON object a log line on stdout; spans carry the service's name."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": service})))
    logging.basicConfig(level=logging.WARNING, format='{"level": "%(levelname)s", "event": "%(name)s: %(message)s"}')
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


@contextmanager
def span(name: str, headers: Mapping[str, str]) -> Iterator[None]:
    """Continue the trace that the headers carry, or begin one."""
    with _tracer.start_as_current_span(name, context=_propagator.extract(dict(headers))):
        yield


def trace_headers() -> dict[str, str]:
    """The current trace as headers, empty outside of one."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier
