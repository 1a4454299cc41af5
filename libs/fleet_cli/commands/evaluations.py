"""`lorafleet evaluations`: what the judge found."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli.client import calls
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table

evaluations = CommandGroup("List and show evaluations, or ask for another.")


@evaluations.command("list")
def list_(
    session: Session,
    adapter: Annotated[str | None, typer.Option("--adapter", help="Only this adapter.")] = None,
) -> None:
    """List evaluations, newest first."""
    found = session.client.call(calls.evaluations(adapter))
    rows = [
        (
            one.evaluation_id,
            one.adapter_id,
            one.golden_dataset_id,
            one.state,
            None if one.score is None else f"{one.score:.1f}",
            None if one.ci_low is None or one.ci_high is None else f"{one.ci_low:.1f} to {one.ci_high:.1f}",
        )
        for one in found
    ]
    session.answer(found, table(("EVALUATION", "ADAPTER", "GOLDEN DATA SET", "STATE", "SCORE", "INTERVAL"), rows))


@evaluations.command("show")
def show(session: Session, evaluation_id: Annotated[str, typer.Argument(metavar="EVALUATION_ID")]) -> None:
    """Show one evaluation."""
    found = session.client.call(calls.evaluation(evaluation_id))
    session.answer(found, facts(found.model_dump(mode="json")))


@evaluations.command("request")
def request(
    session: Session,
    adapter_id: Annotated[str, typer.Argument(metavar="ADAPTER_ID")],
    golden: Annotated[str, typer.Option("--golden-dataset", help="Default: newest of the domain.")] = "",
) -> None:
    """Judge a version again."""
    accepted = session.client.call(calls.request_evaluation(adapter_id, golden))
    session.answer(accepted, facts(accepted.model_dump(mode="json")))
