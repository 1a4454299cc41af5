"""Structured logs with trace ids, and W3C trace context that travels in HTTP and event headers."""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import Processor

__all__ = ["configure", "span", "trace_headers"]

# Read when tqdm is imported: libraries that load models draw bars between the lines of the log.
os.environ.setdefault("TQDM_DISABLE", "1")

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("lorafleet")


def configure(service: str, level: str) -> None:
    """One JSON object a log line on stdout, from whoever logs; spans carry the service's name.

    Libraries are heard from WARNING on, whatever `level` is: at DEBUG they log the headers of requests, and with them
    tokens.
    """
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": service})))
    number = logging.getLevelNamesMapping()[level.upper()]

    def with_service(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        fields.setdefault("service", service)
        return fields

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        with_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
    ]
    rendering: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(max(number, logging.WARNING))
    logging.getLogger("uvicorn").setLevel(max(number, logging.INFO))
    logging.captureWarnings(True)
    _log_uncaught()


def _with_trace(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields["trace_id"] = format(context.trace_id, "032x")
    return fields


def _log_uncaught() -> None:
    """What ends the process or a thread is a line of the log too."""
    log = structlog.get_logger()

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("process ends", exc_info=(kind, error, trace))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.error("thread failed", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            log.error("exception where none can be raised", where=repr(args.object), exc_info=args.exc_value)

    sys.excepthook = of_process
    threading.excepthook = of_thread
    sys.unraisablehook = unraisable


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
