"""The lines of a process's log, to an OpenTelemetry collector too: the event is the body, its fields are attributes."""

import logging
from collections.abc import MutableMapping
from typing import Any

from fleet_kit.otlp import Signal, bounded, exported, resource_of

__all__ = ["LogExport", "flush_logs", "log_export"]

_OWN = "opentelemetry"
"""Loggers of the exporters: what they report of a collector must not be sent to it."""
_WITHOUT = frozenset({"event", "level", "service", "timestamp", "trace_id"})
"""Fields of a line that a record has in a place of its own."""
_running: list["LogExport"] = []


def log_export(service: str) -> "LogExport | None":
    """The export of this process's log; None where no collector is named."""
    if exported(Signal.LOGS) and not _running:
        _running.append(LogExport(service))
    return _running[0] if _running else None


def flush_logs() -> None:
    """Send what has been logged; returns after `otlp.FLUSH_SECONDS` at the latest."""
    for one in _running:
        bounded(one.provider.force_flush)


class LogExport:
    """A processor of structlog, to stand before the one that renders: passes each line on as it came."""

    def __init__(self, service: str) -> None:
        # Imported here: what exports nothing needs neither the exporter nor its HTTP client in memory.
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        # Not at exit: a collector that is unavailable would hold the process up. `flush_logs` is bounded.
        self.provider = LoggerProvider(resource=resource_of(service), shutdown_on_exit=False)
        self.provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self._logger = self.provider.get_logger("lorafleet")

    def __call__(self, _logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Queue a record of the line; its trace is the current one."""
        if not str(fields.get("logger", "")).startswith(_OWN):
            from opentelemetry._logs import LogRecord, SeverityNumber

            level = str(fields.get("level", "info"))
            number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
            self._logger.emit(
                LogRecord(
                    severity_text=level,
                    # Of both scales each level takes four and ten numbers: debug 5 and 10, info 9 and 20, and so on.
                    severity_number=SeverityNumber(number // 10 * 4 + 1),
                    body=str(fields.get("event", "")),
                    attributes={name: _value(value) for name, value in fields.items() if name not in _WITHOUT},
                )
            )
        return fields


def _value(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
