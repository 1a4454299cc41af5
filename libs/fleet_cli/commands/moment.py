"""`lorafleet adapters at`: what a family served at a moment, or when it gave an answer."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli.group import CommandGroup
from fleet_cli.past import family_lines
from fleet_cli.provenance import answer_lines
from fleet_cli.session import Session
from lorafleet import calls


def add(group: CommandGroup) -> None:
    """Put the command into its group."""
    group.command("at")(at)


def at(
    session: Session,
    family: Annotated[
        str,
        typer.Argument(metavar="FAMILY", help="domain-method, for example shop-lora; or the `id` of a response, alone"),
    ],
    time: Annotated[
        str | None,
        typer.Argument(
            metavar="[TIME]", help="RFC 3339 with its time zone, for example 2026-01-31T12:00:00Z; none for a response."
        ),
    ] = None,
    entries: Annotated[
        int, typer.Option("--entries", min=0, max=1000, help="Decisions to show before, and after.")
    ] = 5,
) -> None:
    """Show which version served at a moment, approved by whom, on what evidence; or gave an answer, with its chain."""
    if time is None:
        answer = session.client.call(calls.answer_provenance(family))
        session.answer(answer, "\n".join(answer_lines(answer)))
        return
    found = session.client.call(calls.family_at(family, time, entries))
    session.answer(found, "\n".join(family_lines(found)))
