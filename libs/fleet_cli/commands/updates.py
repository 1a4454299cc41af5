"""`lorafleet adapters updates`: what runs where against what is available."""

from __future__ import annotations

from fleet_cli.commands.options import OptionalDomain
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from lorafleet import calls


def add(adapters: CommandGroup) -> None:
    """Add the command to `lorafleet adapters`."""
    adapters.command("updates")(updates)


def updates(session: Session, domain: OptionalDomain = None) -> None:
    """List what runs where, and which versions are available and recommended for it."""
    found = session.client.call(calls.updates(domain))
    rows = [
        (
            one.running,
            "active" if one.active else "",
            ", ".join(one.held_by),
            one.available,
            "yes" if one.recommended else "",
            one.why,
        )
        for one in found
    ]
    session.answer(found, table(("RUNNING", "ACTIVE", "REPLICAS", "AVAILABLE", "RECOMMENDED", "WHY"), rows))
