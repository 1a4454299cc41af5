"""`lorafleet registry`: the registry as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli.commands.options import OptionalDomain
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table
from lorafleet import calls

registry = CommandGroup("Show statistics of the registry, and what callers took.")


@registry.command("statistics")
def statistics(session: Session) -> None:
    """Show counts of versions, answers and ratings by domain."""
    found = session.client.call(calls.statistics())
    rows = [
        (
            one.domain or "(base model)",
            one.versions,
            one.active,
            one.pending_review,
            one.approved,
            one.rejected,
            None if one.average_score is None else f"{one.average_score:.1f}",
            one.answers,
            one.ratings,
            None if one.average_rating is None else f"{one.average_rating:.2f}",
        )
        for one in found.domains
    ]
    columns = ("DOMAIN", "VERSIONS", "ACTIVE", "IN REVIEW", "APPROVED", "REJECTED", "SCORE", "ANSWERS", "RATINGS")
    session.answer(found, table((*columns, "RATING"), rows))


@registry.command("usage")
def usage(
    session: Session,
    month: Annotated[
        str, typer.Option("--month", metavar="YYYY-MM", help="Month of UTC (default: the present one).")
    ] = "",
    domain: OptionalDomain = None,
) -> None:
    """Show answers and tokens of a month by domain and caller, most tokens first."""
    found = session.client.call(calls.usage(month, domain))
    rows = [
        (one.domain or "(base model)", one.caller, one.answers, one.prompt_tokens, one.completion_tokens)
        for one in found.usage
    ]
    columns = ("DOMAIN", "CALLER", "ANSWERS", "PROMPT TOKENS", "COMPLETION TOKENS")
    session.answer(found, table(columns, rows, title=found.month))
