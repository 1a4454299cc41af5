"""`lorafleet adapters metrics`: the numbers of a version, and those that users set."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli.commands.options import ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from lorafleet import calls
from lorafleet.errors import BadInput
from lorafleet.responses import Adapter

EXPECTED = "expected NAME=VALUE or NAME=VALUE,LOW,HIGH or NAME=VALUE,LOW,HIGH,SAMPLES, for example citations=0.93"


def add(adapters: CommandGroup) -> None:
    """Add the command to `lorafleet adapters`."""
    adapters.command("metrics")(metrics)


def metrics(
    session: Session,
    *,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE[,LOW,HIGH[,SAMPLES]]",
            help="Metric to set, with its interval and number of measurements (default: none is set).",
        ),
    ] = None,
    removed: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="Metric to remove (default: none).")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="How they were measured (default: nothing).")] = "",
    reason: ReasonOption = "",
) -> None:
    """Show the metrics of a version, and set or remove your own."""
    changes: dict[str, object] = dict(_metric(one, note) for one in given or ())
    changes |= dict.fromkeys(removed or ())
    call = calls.set_metrics(adapter_id, changes, reason) if changes else calls.adapter(adapter_id)
    found = session.client.call(call)
    session.answer({"metrics": found.metrics, "own_metrics": found.own_metrics}, table(COLUMNS, _rows(found)))


COLUMNS = ("METRIC", "VALUE", "INTERVAL", "SAMPLES", "SET BY", "AT", "NOTE")


def _rows(found: Adapter) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (name, _number(value), None, None, None, None, None) for name, value in sorted(found.metrics.items())
    ]
    for name, own in found.own_metrics.items():
        low, high = own.get("ci_low"), own.get("ci_high")
        interval = None if low is None else f"{_number(low)} to {_number(high)}"
        shown = (own.get("samples"), own.get("set_by"), own.get("set_at"), own.get("note"))
        rows.append((name, _number(own.get("value")), interval, *shown))
    return rows


def _number(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _metric(text: str, note: str) -> tuple[str, object]:
    name, given, numbers = text.partition("=")
    try:
        read = [float(one) for one in numbers.split(",")]
    except ValueError as error:
        raise BadInput("--set", f"{EXPECTED}, not {text!r}") from error
    if not name or not given or len(read) not in (1, 3, 4):
        raise BadInput("--set", f"{EXPECTED}, not {text!r}")
    fields: dict[str, object] = dict(zip(("value", "ci_low", "ci_high"), read, strict=False))
    if len(read) == 4:
        if not read[3].is_integer():
            raise BadInput("--set", f"SAMPLES is {read[3]:g}, expected a whole number")
        fields["samples"] = int(read[3])
    return name, fields | {"note": note}
