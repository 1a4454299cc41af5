"""`lorafleet policies`: by what rules a domain's versions are approved."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fleet_cli.client import calls
from fleet_cli.client.errors import BadInput
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts

policies = CommandGroup("Show and set the approval policies of domains.")

Domain = Annotated[str, typer.Argument(metavar="DOMAIN")]


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
        typer.Argument(metavar="NAME=VALUE...", help="For example approve_at=90 activate_on_approval=false."),
    ],
) -> None:
    """Change settings of a domain's approval policy; the others stay."""
    changes = dict(_setting(one) for one in settings)
    current = session.client.call(calls.policy(domain))
    found = session.client.call(calls.set_policy(domain, {**current, **changes}))
    session.answer(found, facts(found))


def _setting(text: str) -> tuple[str, object]:
    name, given, value = text.partition("=")
    if not given or not name:
        raise BadInput("NAME=VALUE", f"{text!r} is no setting; write for example approve_at=90")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a word, such as mode=simple
