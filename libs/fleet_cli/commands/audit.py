"""`lorafleet adapters audit` and `refusals`: who did what with versions, and what never became one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from fleet_cli.commands.options import OptionalDomain
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from lorafleet import calls
from lorafleet.responses import AuditLine


def add(adapters: CommandGroup) -> None:
    """Add the commands to `lorafleet adapters`."""
    adapters.command("audit")(audit)
    adapters.command("refusals")(refusals)


def audit(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")],
) -> None:
    """Show who did what with a version, when and why."""
    found = session.client.call(calls.audit(adapter_id))
    session.answer(found, trail(found))


def refusals(
    session: Session,
    domain: OptionalDomain = None,
    limit: Annotated[int, typer.Option("--limit", help="Most refusals to list.", min=1, max=1000)] = 100,
) -> None:
    """List finished trainings that could not be registered, newest first, and why."""
    found = session.client.call(calls.refusals(domain, limit))
    rows = [(one.at, one.domain, one.job_id, one.field, one.reason) for one in found]
    session.answer(found, table(("AT", "DOMAIN", "JOB", "FIELD", "REASON"), rows))


def trail(lines: Sequence[AuditLine]) -> Table:
    """An audit trail as a table: of what stood before and after, only what changed."""
    rows = [(one.at, one.actor, one.action, _changes(one), one.reason) for one in lines]
    return table(("AT", "WHO", "ACTION", "CHANGED", "REASON"), rows)


def _changes(line: AuditLine) -> str:
    names = sorted(line.before.keys() | line.after.keys())
    changed = ((name, line.before.get(name), line.after.get(name)) for name in names)
    return ", ".join(f"{name}: {_shown(old)} → {_shown(new)}" for name, old, new in changed if old != new)


def _shown(value: object) -> object:
    if isinstance(value, dict) and "value" in value:  # a metric
        return value["value"]
    return "–" if value is None else value
