"""`lorafleet retraining`: rules by which domains are trained again without a person."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group

from fleet_cli.commands.options import name_and_value
from fleet_cli.files import read_object
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from fleet_events.v1 import RetrainingTrigger
from lorafleet import calls
from lorafleet.errors import BadInput

retraining = CommandGroup("List, show and set the rules by which domains are trained again, and what the rules did.")

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="The domain.")]


@retraining.command("list")
def list_(session: Session) -> None:
    """List the domains that have rules, with the triggers that are on."""
    found = session.client.call(calls.retraining_rules())
    rows = [
        (
            one.domain,
            "on" if one.rules.get("enabled") else "off",
            ", ".join(_triggers(one.rules)),
            one.set_by,
            one.set_at,
        )
        for one in found
    ]
    session.answer(found, table(("DOMAIN", "RULES", "TRIGGERS", "SET BY", "SET AT"), rows))


@retraining.command("show")
def show(session: Session, domain: Domain) -> None:
    """Show a domain's rules."""
    found = session.client.call(calls.retraining(domain))
    session.answer(found, facts({**found.rules, "set_by": found.set_by, "set_at": found.set_at}))


@retraining.command("set")
def set_(
    session: Session,
    domain: Domain,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE...]",
            help="Rules to change, for example new_samples.at_least=200 schedule='daily 03:00' drift=null.",
        ),
    ] = None,
    file: Annotated[
        str, typer.Option("--file", help="JSON or YAML file with all rules (default: the present ones).")
    ] = "",
) -> None:
    """Set one or more of a domain's rules; the others stay."""
    if not file and not settings:
        raise BadInput("NAME=VALUE", "name at least one rule, or a file with --file")
    rules = read_object(file, "--file", "domain rules") if file else _present(session, domain)
    for name, value in map(name_and_value, settings or ()):
        _put(rules, name, value)
    found = session.client.call(calls.set_retraining(domain, rules))
    session.answer(found, facts({**found.rules, "set_by": found.set_by, "set_at": found.set_at}))


@retraining.command("firings")
def firings(session: Session, domain: Domain) -> None:
    """List the jobs that a domain's rules requested with their reasons, and what led to no job and why not."""
    found = session.client.call(calls.retraining_firings(domain))
    jobs = [
        (one.fired_at, one.job_id, one.state or "requested", ", ".join(one.triggers), one.reason)
        for one in found.firings
    ]
    held = [(one.last_at, one.trigger, one.why, one.times, one.detail) for one in found.suppressed]
    session.answer(
        found,
        Group(
            table(("FIRED AT", "JOB", "STATE", "TRIGGERS", "REASON"), jobs),
            table(("LAST HELD BACK", "TRIGGER", "WHY", "TIMES", "DETAIL"), held),
        ),
    )


def _present(session: Session, domain: str) -> dict[str, object]:
    """The rules that a domain has; they are on where it had none."""
    found = session.client.call(calls.retraining(domain))
    return dict(found.rules) if found.set_by else {**found.rules, "enabled": True}


def _triggers(rules: dict[str, object]) -> list[str]:
    names = [trigger.value for trigger in RetrainingTrigger]
    return [name for name in names if rules.get(name)]


def _put(rules: dict[str, object], name: str, value: object) -> None:
    """Set a rule by its dotted name."""
    *path, last = name.split(".")
    inner = rules
    for part in path:
        below = inner.get(part)
        copied = dict(below) if isinstance(below, dict) else {}
        inner[part] = copied
        inner = copied
    inner[last] = value
