"""`lorafleet route`: which adapter a query is for, and what the router learns of that."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group

from fleet_cli.client import calls
from fleet_cli.client.errors import BadInput
from fleet_cli.commands.options import DomainOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table

route = CommandGroup("Show which adapter `--model auto` chooses, and correct what it chooses wrongly.")

Query = Annotated[str, typer.Argument(metavar="QUERY")]


@route.command("ask")
def ask(
    session: Session,
    query: Query,
    k: Annotated[int, typer.Option("--k", min=1, max=50, help="How many adapters.")] = 3,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=-1, max=1, help="Least similarity, in place of each adapter's.")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only these domains.")] = None,
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
    """List the adapters that queries are routed to, what they are recognised by and from which similarity on."""
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
    family: Annotated[str, typer.Option("--to", help="Family that is to answer it, for example tax-law-lora.")] = "",
    nobody: Annotated[bool, typer.Option("--to-none", help="No adapter of the domain is to answer it.")] = False,
) -> None:
    """Correct a query that was routed wrongly; queries like it follow. The router keeps its text."""
    if bool(family) == nobody:
        raise BadInput("--to", "say --to FAMILY for who is to answer, or --to-none for nobody")
    taught = session.client.call(calls.correct_route(query, domain, family or None))
    who = f"{family} answers" if family else f"no adapter of {domain} answers"
    session.answer(taught, f"taught: {who} this query and those like it")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
