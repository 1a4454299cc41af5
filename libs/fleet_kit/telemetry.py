"""Structured logs, each line with its trace's id, and what of them, of metrics and of spans goes to a collector."""

import logging
import os
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from structlog.typing import Processor

from fleet_kit.otlp import bounded
from fleet_kit.otlp_logs import flush_logs, log_export
from fleet_kit.otlp_metrics import export_metrics, flush_metrics
from fleet_kit.tracing import configure_tracing, flush_spans

__all__ = ["configure", "flush"]

# Read when tqdm is imported: libraries that load models draw bars between the lines of the log.
os.environ.setdefault("TQDM_DISABLE", "1")


def configure(service: str, level: str) -> None:
    """One JSON object per log line on stdout, from every logger; lines, spans and metrics to a collector that is named.

    Libraries log from WARNING on, independent of `level`: at DEBUG they log the headers of requests, and with them
    tokens.
    """
    configure_tracing(service)
    export_metrics(service)
    export = log_export(service)
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
    if export is not None:
        rendering.insert(1, export)
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


def flush() -> None:
    """Send what a collector has not got yet; returns after some seconds at the latest."""
    bounded(flush_spans, flush_metrics, flush_logs)


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
            log.critical("process_failed", exc_info=(kind, error, trace))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.error("thread_failed", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            log.error("unraisable_exception", where=repr(args.object), exc_info=args.exc_value)

    sys.excepthook = of_process
    threading.excepthook = of_thread
    sys.unraisablehook = unraisable
