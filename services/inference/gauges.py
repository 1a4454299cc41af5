"""Gauges that are read when the metrics are: rows of the engines, and what their prefix caches hold."""

from services.inference.base_models import BaseModels, ServedBaseModel
from services.inference.metrics import PREFIX_BYTES, ROWS, ROWS_MOST


def show(hosting: BaseModels) -> None:
    """Let the gauges follow these base models."""
    for one in hosting.all:
        _show(one)


def _show(one: ServedBaseModel) -> None:
    name, backend, prefixes = one.base.name, one.backend, one.prefixes
    ROWS.labels(name, "running").set_function(lambda: backend.load[0])
    ROWS.labels(name, "waiting").set_function(lambda: backend.load[1])
    ROWS_MOST.labels(name).set(backend.rows)
    if prefixes is not None:
        PREFIX_BYTES.labels(name).set_function(lambda: prefixes.stats.bytes)
