"""`lorafleet adapters compare`: versions against one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from lorafleet import calls
from lorafleet.errors import BadInput
from lorafleet.responses import ComparedPair, VersionComparison

Versions = Annotated[list[str], typer.Argument(metavar="ADAPTER_ID...", help="Two to five versions.")]


def add(adapters: CommandGroup) -> None:
    """Add the command to `lorafleet adapters`."""
    adapters.command("compare")(compare)


def compare(session: Session, versions: Versions) -> None:
    """Compare versions: what differs, what is better, and whether that is significant."""
    if len(set(versions)) < 2:
        raise BadInput("ADAPTER_ID", "name at least two different versions")
    found = session.client.call(calls.compare(versions))
    session.answer(found, Group(*_shown(found)))


def _shown(found: VersionComparison) -> Iterator[Table | Text]:
    names = [one.adapter_id for one in found.versions]
    differing = [(name, *(values.get(one) for one in names)) for name, values in found.differing.items()]
    yield table(("DIFFERS IN", *names), differing)
    metrics = sorted({name for one in found.versions for name in one.metrics})
    rows: list[tuple[object, ...]] = [
        (name, *(_metric(one.metrics.get(name)) for one in found.versions)) for name in metrics
    ]
    rows.append(("rating", *(_estimate(one.rating, "average") for one in found.versions)))
    rows.append(("answers", *(one.usage.get("answers") for one in found.versions)))
    yield Text()
    yield table(("NUMBER", *names), rows)
    for pair in found.pairs:
        yield Text()
        yield from _pair(pair)
    for source, strengths in found.preferences.items():
        yield Text()
        yield _strengths(source, strengths)
    yield Text()
    none = f"no significant difference at {found.level:.0%}, corrected for all tests (Holm)"
    yield Text("\n".join(found.significant) or none)


def _pair(pair: ComparedPair) -> Iterator[Table | Text]:
    title = f"{pair.first} less {pair.second}"
    if not pair.fair:
        yield Text(f"{title}: no fair comparison: {pair.why_not}")
    rows = [
        (
            one.measure,
            f"{one.difference:+.2f}",
            None if one.ci_low is None or one.ci_high is None else f"{one.ci_low:+.2f} to {one.ci_high:+.2f}",
            one.samples,
            f"{one.corrected:.4f}",
            "yes" if one.significant else "",
            one.test,
        )
        for one in pair.measures
    ]
    if rows:
        yield table(("MEASURE", "DIFFERENCE", "95 %", "N", "P (HOLM)", "SIGNIFICANT", "TEST"), rows, title=title)
    for source, tally in pair.preferences.items():
        counts = ", ".join(f"{tally.get(name) or 0:g} {name}" for name in ("wins", "ties", "losses"))
        yield Text(f"{title}: preferred by {source}: {counts}; win rate {_estimate(tally, 'win_rate')}")


def _strengths(source: str, found: dict[str, object]) -> Table | Text:
    rates, strengths = found.get("win_rates"), found.get("strengths")
    if not isinstance(rates, dict) or not isinstance(strengths, dict) or not rates:
        return Text(f"no Bradley-Terry strengths from {source}: {found.get('why_not')}")
    intervals = found.get("intervals")
    known: dict[str, tuple[float, float]] = intervals if isinstance(intervals, dict) else {}
    rows = [
        (
            name,
            f"{rate:.3f}",
            f"{known[name][0]:.3f} to {known[name][1]:.3f}" if name in known else None,
            f"{strengths[name]:.3f}",
        )
        for name, rate in sorted(rates.items())
    ]
    return table((f"PREFERRED BY {source.upper()}", "WIN RATE", "95 %", "STRENGTH"), rows)


def _metric(metric: dict[str, object] | None) -> str | None:
    return _estimate(metric, "value") if metric else None


def _estimate(found: dict[str, object] | dict[str, float | None], name: str) -> str | None:
    value, low, high = (found.get(key) for key in (name, "ci_low", "ci_high"))
    if not isinstance(value, int | float):
        return None
    interval = f" [{low:.4g}, {high:.4g}]" if isinstance(low, int | float) and isinstance(high, int | float) else ""
    return f"{value:.4g}{interval}"
