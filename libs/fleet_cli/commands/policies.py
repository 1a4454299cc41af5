"""`lorafleet policies`: the approval policies of domains."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli.commands.audit import trail
from fleet_cli.commands.options import name_and_value
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts
from lorafleet import calls

policies = CommandGroup("Show and set the approval policies of domains, and show their audit trail.")

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="The domain.")]


@policies.command("show")
def show(session: Session, domain: Domain) -> None:
    """Show a domain's approval policy."""
    found = session.client.call(calls.policy(domain))
    session.answer(found, facts(found))


@policies.command("set")
def set_(
    session: Session,
    domain: Domain,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE...", help="Settings to change, for example approve_at=90 activate_on_approval=false."
        ),
    ],
) -> None:
    """Set one or more settings of a domain's approval policy; the others stay."""
    changes = dict(name_and_value(one) for one in settings)
    current = session.client.call(calls.policy(domain))
    found = session.client.call(calls.set_policy(domain, {**current, **changes}))
    session.answer(found, facts(found))


@policies.command("audit")
def audit(session: Session, domain: Domain) -> None:
    """Show who changed a domain's approval policy, when, and what."""
    found = session.client.call(calls.policy_audit(domain))
    session.answer(found, trail(found))
