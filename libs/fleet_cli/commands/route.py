"""`lorafleet route`: which adapter a query is routed to, and how that is corrected."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group

from fleet_cli.commands.options import DomainOption, OptionalDomain
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from lorafleet import calls
from lorafleet.errors import BadInput

route = CommandGroup("Show which adapter `--model auto` chooses, and correct wrong choices.")

Query = Annotated[str, typer.Argument(metavar="QUERY", help="The question.")]


@route.command("ask")
def ask(
    session: Session,
    query: Query,
    k: Annotated[int, typer.Option("--k", min=1, max=50, help="Number of adapters to show.")] = 3,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=-1, max=1, help="Minimum similarity (default: each adapter's own)."),
    ] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only these domains; may be repeated.")] = None,
) -> None:
    """Show which adapters `--model auto` would choose for a query, and why."""
    found = session.client.call(calls.route(query, k, threshold, domain or []))
    rows = [(one.adapter_id, one.domain, f"{one.score:.3f}", _number(one.threshold)) for one in found.matches]
    shown = facts({"outcome": found.outcome, "why": found.why})
    session.answer(
        found, Group(table(("ADAPTER", "DOMAIN", "SIMILARITY", "THRESHOLD"), rows), shown) if rows else shown
    )


@route.command("list")
def list_(session: Session) -> None:
    """List the adapters that queries are routed to, with their evidence and similarity thresholds."""
    found = session.client.call(calls.routes())
    rows = [
        (one.adapter_id, one.domain, one.evidence or "nothing", one.vectors, _number(one.threshold), one.calibrated_on)
        for one in found
    ]
    session.answer(found, table(("ADAPTER", "DOMAIN", "BY", "VECTORS", "THRESHOLD", "CALIBRATED ON"), rows))


@route.command("teach")
def teach(
    session: Session,
    query: Query,
    domain: DomainOption,
    family: Annotated[
        str, typer.Option("--to", help="Family that should answer, for example tax-law-lora (default: --to-none).")
    ] = "",
    none: Annotated[bool, typer.Option("--to-none", help="No adapter of the domain should answer.")] = False,
) -> None:
    """Correct the route of a query and of queries like it. The router keeps its text."""
    if bool(family) == none:
        raise BadInput("--to", "pass either --to FAMILY or --to-none")
    taught = session.client.call(calls.correct_route(query, domain, family or None))
    who = f"{family} answers" if family else f"no adapter of {domain} answers"
    session.answer(taught, f"taught: {who} this query and those like it")


@route.command("corrections")
def corrections(
    session: Session,
    domain: OptionalDomain = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Number of corrections to show.")] = 100,
) -> None:
    """List the corrections that count, newest first, with their queries; of feedback, the answer that it was on."""
    found = session.client.call(calls.route_corrections(domain, limit))
    rows = [
        (
            one.correction_id,
            one.domain,
            one.family or "none",
            one.taught_by,
            one.taught_at[:10],
            one.query or f"(feedback on {one.generation_id})",
        )
        for one in found
    ]
    session.answer(found, table(("CORRECTION", "DOMAIN", "FAMILY", "BY", "AT", "QUERY"), rows))


@route.command("forget")
def forget(
    session: Session,
    correction_id: Annotated[
        str, typer.Argument(metavar="CORRECTION", help="Its id, as `route corrections` shows it.")
    ],
    domain: DomainOption,
) -> None:
    """Delete a correction: its query is routed as if it had never been corrected."""
    gone = session.client.call(calls.forget_correction(domain, correction_id))
    session.answer(gone, f"forgot correction {correction_id} of {domain}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
