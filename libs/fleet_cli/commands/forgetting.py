"""`lorafleet data forget` and `data erasures`: people have their records erased."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fleet_cli.commands.options import OptionalDomain, ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from lorafleet import calls
from lorafleet.responses import Erasure


class Learned(StrEnum):
    """What becomes of the adapters that learned from the records."""

    LIST = "list"
    RETIRE = "retire"
    REPLACE = "replace"


def add(group: CommandGroup) -> None:
    """Put the commands into `data`."""
    group.command("forget")(forget)
    group.command("erasures")(erasures)


def forget(
    session: Session,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The person, as the records name them.")],
    domain: OptionalDomain = None,
    reason: ReasonOption = "",
    adapters: Annotated[
        Learned,
        typer.Option(
            "--adapters",
            help="What becomes of adapters that learned from the records: they are listed; or rejected at once; or "
            "rejected once a version serves that the retraining rules have trained without the records.",
        ),
    ] = Learned.LIST,
) -> None:
    """Delete every record about a person, in all domains or in one; later ones are refused."""
    found = session.client.call(calls.forget_subject(subject, domain or "*", reason, adapters.value))
    session.client.call(calls.forget_golden(found.erasure_id, subject, domain or "*"))
    session.client.call(calls.forget_stored(found.erasure_id, subject, domain or "*"))
    session.answer(found, f"{found.erasure_id}: {_state(found)}")
    for one in found.kept_elsewhere:
        session.note(one)
    session.note(f"`lorafleet data erasures {found.erasure_id}` shows how far it is, and its proof")


def erasures(
    session: Session,
    erasure_id: Annotated[
        str | None, typer.Argument(metavar="[ERASURE_ID]", help="One of them (default: all of them).")
    ] = None,
) -> None:
    """Show requests to forget people, how far each service is, and what was deleted."""
    if erasure_id is not None:
        one = session.client.call(calls.erasure(erasure_id))
        session.answer(one, facts(one.model_dump(mode="json")))
        return
    found = session.client.call(calls.erasures())
    rows = [(one.erasure_id, one.domain, _state(one), one.requested_at, one.requested_by, one.late) for one in found]
    session.answer(found, table(("ERASURE", "DOMAIN", "STATE", "REQUESTED", "BY", "LATE"), rows))


def _state(one: Erasure) -> str:
    return f"{one.state} ({', '.join(f'{each.service} {each.state}' for each in one.services)})"
